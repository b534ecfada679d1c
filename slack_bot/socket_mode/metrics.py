"""Metrics of Socket Mode."""

from prometheus_client import Counter, Gauge

CONNECTED = Gauge(
    "tollgate_slack_socket_connected",
    "Whether this process is connected to Slack (1) or not (0).",
    multiprocess_mode="livesum",
)
CONNECTIONS = Counter(
    "tollgate_slack_socket_connections",
    "Attempts to connect to Slack, by outcome: connected, or why not.",
    ["outcome"],
)
ENDS = Counter(
    "tollgate_slack_socket_ends",
    "Connections that ended, by reason: Slack's own, closed, lost, or stopped.",
    ["reason"],
)
ENVELOPES = Counter(
    "tollgate_slack_socket_envelopes",
    "What Slack sent, by kind and outcome: acknowledged, or unacknowledged (it failed, or the "
    "connection was gone).",
    ["kind", "outcome"],
)
