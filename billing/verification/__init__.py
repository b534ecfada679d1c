"""Compare everything that is derived from the ledger with the ledger, and repair differences."""
