"""Why something is refused, in words for whoever administers it."""

REASONS = {
    "limit_reached": "nothing is left of limit and top-ups",
    "insufficient_remaining": "what is left pays for no generation",
    "organization_inactive": "the organization is not active",
    "project_cap_reached": "the cap of the project is reached",
    "user_cap_reached": "the cap of the user is reached",
    "run_cap_reached": "the cap of the run is reached",
    "set_by_hand": "set by hand in Redis: no decision of ours",
}
"""Reason → what it means; the reasons of `quota` and of `billing.decisions.decision`."""


def in_words(reason: str | None) -> str:
    """Return what a reason means; one without words of its own as it is."""
    return REASONS.get(reason or "", (reason or "").replace("_", " "))
