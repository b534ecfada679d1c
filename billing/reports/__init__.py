"""Reports: where credits went, when they run out, and what another limit would do."""
