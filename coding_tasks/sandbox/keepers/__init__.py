"""Workspaces that keepers hold: one process for each, which also starts its commands."""
