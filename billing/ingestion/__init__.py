"""Usage events, from their delivery by the gateway to the ledger."""
