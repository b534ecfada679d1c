"""Prometheus counters of billing."""

from prometheus_client import Counter

UNDECIDABLE = Counter(
    "tollgate_undecidable_events",
    "Events set aside because nothing could be decided about their account.",
)
REPAIRS = Counter(
    "tollgate_billing_repairs",
    "Accounts whose totals, stored decision or publication were not what the ledger says.",
)
CORRECTIONS_CUT = Counter(
    "tollgate_corrections_cut",
    "Corrections that would have given back more than their event still cost.",
)
