"""Prometheus counters of billing."""

from prometheus_client import Counter

UNDECIDABLE = Counter(
    "tollgate_undecidable_events",
    "Events quarantined because the decision about their account failed.",
)
REPAIRS = Counter(
    "tollgate_billing_repairs",
    "Accounts whose totals, stored decision or publication differed from the ledger.",
)
CORRECTIONS_CUT = Counter(
    "tollgate_corrections_cut",
    "Corrections cut because they would give back more than their event still cost.",
)
