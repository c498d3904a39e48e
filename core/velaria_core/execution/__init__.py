"""How it runs: the engine, lowering, files, sources and sinks."""
