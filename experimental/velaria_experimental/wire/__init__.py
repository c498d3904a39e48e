"""What crosses between processes: messages, how they are read and refused, and errors as messages."""
