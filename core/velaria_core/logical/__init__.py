"""What is asked: immutable expressions, nodes and rules; nothing here reads, runs or waits."""
