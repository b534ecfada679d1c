"""The published state: written to the database, then to Redis, and kept the same in both."""
