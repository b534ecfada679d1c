"""Coding tasks over the API: its endpoints, and the workflows that do the work."""
