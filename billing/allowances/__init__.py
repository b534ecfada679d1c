"""What an account may use: limits, grants (top-ups) and caps."""
