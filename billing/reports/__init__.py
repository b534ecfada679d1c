"""What people ask of the ledger: where credits went, when they end, what a limit would do."""
