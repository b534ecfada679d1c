"""Stopping work: the rows that end, and the notices that are withheld."""
