"""From a delivered usage event to the ledger."""
