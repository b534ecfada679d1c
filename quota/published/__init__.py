"""The published state: written to rows, then to Redis, and kept equal."""
