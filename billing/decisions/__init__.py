"""Decisions about accounts: who can spend, why, and until when, computed from the ledger."""
