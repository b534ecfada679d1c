"""Orders to stop, and what they end."""
