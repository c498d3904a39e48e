"""Conformance: every source and sink of the kernel under `velaria_core.contract.conformance`, then what is its own."""
