"""Tollgate with empty views for comparison, for `benchmarks.quota_endpoint`."""
