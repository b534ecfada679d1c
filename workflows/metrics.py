"""Metrics about messages to Slack."""

from prometheus_client import Counter

NOTICES = Counter(
    "tollgate_notices",
    "Messages that were sent or given up, by kind, destination and state.",
    ["kind", "destination", "state"],
)
