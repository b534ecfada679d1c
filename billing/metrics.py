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
RUN_REFUNDS = Counter(
    "tollgate_run_refunds",
    "Task runs and lost attempts whose cost was given back, by failure.",
    ["reason"],
)
REFUNDED_MICRO = Counter(
    "tollgate_run_refunded_micro_credits",
    "Micro-credits given back to task runs, also for late events, by failure.",
    ["reason"],
)
