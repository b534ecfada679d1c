"""Metrics about what is sent to Slack and read from it, and about quotes."""

from prometheus_client import Counter

NOTICES = Counter(
    "tollgate_notices",
    "Messages that were sent or given up, by kind, destination and state.",
    ["kind", "destination", "state"],
)

QUOTES = Counter(
    "tollgate_quotes",
    "Quotes of runs that entered a state: shown or asked, and then accepted, smaller, cancelled, "
    "expired or dropped.",
    ["state"],
)

THREADS_READ = Counter(
    "tollgate_threads_read",
    "Threads that were read for an agent, by outcome: read, or unreadable.",
    ["outcome"],
)

TOKEN_REFRESHES = Counter(
    "tollgate_slack_token_refreshes",
    "Attempts to renew a bot token that expires, by outcome: renewed, failed (tried again soon), "
    "refused (the app's id or secret is wrong) or final (the app must be installed again).",
    ["outcome"],
)
