"""One command a file; each has it as `command`."""
