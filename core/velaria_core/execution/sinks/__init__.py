"""Sinks of the kernel: one idea a file, each a `contract.abi.Sink`. `contract.conformance` holds them to it."""
