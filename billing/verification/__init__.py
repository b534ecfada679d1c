"""Does everything that is made from the ledger agree with it? And repairing what doesn't."""
