"""SQL text to plan nodes: an ingress beside the DataFrame calls, which makes the same nodes and drives nothing."""
