"""Plans in parts: where a plan can be cut by the shapes that the kernel declares, and how a worker runs a part."""
