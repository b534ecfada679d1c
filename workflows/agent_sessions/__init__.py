"""Slack's agent sessions: the state of a thread's work that Slack itself shows, with a button."""
