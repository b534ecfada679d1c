"""Prometheus metrics of the published limits."""

from prometheus_client import Counter, Gauge

REPAIRS = Counter(
    "tollgate_quota_repairs",
    "Keys or members of Redis that differed from what was published.",
    ["found_by"],
)
REBUILDS = Counter("tollgate_quota_rebuilds", "Rebuilds of Redis from the database.")
TICK_FAILURES = Counter(
    "tollgate_quota_tick_failures", "Ticks of the reconciler that a dependency cut short."
)
TICK_SECONDS = Gauge(
    "tollgate_quota_tick_seconds",
    "How long the reconciler's last tick took.",
    multiprocess_mode="mostrecent",
)
ANSWERED_FROM_DATABASE = Counter(
    "tollgate_quota_database_answers",
    "Questions answered from the database because Redis could not be trusted.",
)
