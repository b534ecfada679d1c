"""Connections: the HTTP server and client, the Redis connection, and what interrupts a call."""
