"""Version 1 of the messages; generated from runtime.proto."""
