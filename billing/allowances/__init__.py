"""What an account can use: limits, grants (top-ups) and caps."""
