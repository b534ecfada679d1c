"""Metrics, logs and error reports."""
