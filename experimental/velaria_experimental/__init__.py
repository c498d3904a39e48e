"""Experiments on the kernel: same-host execution by actors over gRPC. Nothing supported imports this."""

__version__ = "0.1.0"
