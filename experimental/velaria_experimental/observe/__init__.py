"""What happens, told: events as JSON lines, spans as traces, and a dashboard of text."""
