"""Sources of the kernel: one idea a file, each a `contract.abi.Source`. `contract.conformance` holds them to it."""
