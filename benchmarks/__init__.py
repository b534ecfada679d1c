"""Benchmarks; README.md in this folder says what they measure."""
