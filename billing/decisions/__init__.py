"""From the ledger to a published decision: who may spend, why, and until when."""
