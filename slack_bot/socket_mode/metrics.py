"""Metrics of Socket Mode."""

from prometheus_client import Counter, Gauge

CONNECTED = Gauge(
    "tollgate_slack_socket_connected",
    "Whether this process is connected to Slack (1) or not (0).",
    multiprocess_mode="livesum",
)
CONNECTIONS = Counter(
    "tollgate_slack_socket_connections",
    "Attempts to connect to Slack, by outcome: connected, refused, or failed.",
    ["outcome"],
)
ENDS = Counter(
    "tollgate_slack_socket_ends",
    "Connections that ended, by reason: the one Slack gave, closed, or lost.",
    ["reason"],
)
ENVELOPES = Counter(
    "tollgate_slack_socket_envelopes",
    "Envelopes from Slack, by kind and outcome: acknowledged, or unacknowledged (it failed, or "
    "the connection was gone).",
    ["kind", "outcome"],
)
