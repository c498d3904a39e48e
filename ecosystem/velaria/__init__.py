"""Velaria: local-first dataflow, batch and stream in one model. The public door of all supported layers."""

__version__ = "0.1.0"
