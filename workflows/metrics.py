"""Metrics of the messages to Slack."""

from prometheus_client import Counter

NOTICES = Counter(
    "tollgate_notices",
    "Messages that Slack took, or that were given up, by how they reached people.",
    ["kind", "destination", "state"],
)
