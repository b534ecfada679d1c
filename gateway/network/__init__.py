"""The HTTP server and client, the Redis connection, and interrupting calls."""
