"""What a thread shows of a run while it works: one message, edited in place, with a stop button."""
