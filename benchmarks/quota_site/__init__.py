"""Tollgate with one more path: an empty view, for `benchmarks.quota_endpoint` to compare with."""
