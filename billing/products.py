"""Which bucket pays for which product: billing's own table, so that no event can choose.

The gateway keeps the same table for its doors; what it says about an event's bucket is not read.
"""

from quota.resources import AI_CREDITS, POSTHOG_CODE_CREDITS

BUCKETS: dict[str, str | None] = {
    "slack_app": AI_CREDITS,
    "slack_app_routing": AI_CREDITS,
    "posthog_code": POSTHOG_CODE_CREDITS,
    "llm_gateway": None,
}
"""Product → resource that pays; None: nobody, the product is unmetered."""

ALIASES = {"slack-posthog-code": "slack_app_routing"}


def canonical(name: str) -> str | None:
    """Return the product's own name for a name or alias; None for an unknown product."""
    name = ALIASES.get(name, name)
    return name if name in BUCKETS else None
