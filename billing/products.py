"""Which bucket pays for which product.

The gateway has the same table to check calls. Billing uses its own, so that an event can't choose
the bucket that it is charged to.
"""

from quota.resources import AI_CREDITS, POSTHOG_CODE_CREDITS

BUCKETS: dict[str, str | None] = {
    "slack_app": AI_CREDITS,
    "slack_app_routing": AI_CREDITS,
    "posthog_code": POSTHOG_CODE_CREDITS,
    "llm_gateway": None,
}
"""The resource that pays for each product. None means that the product is unmetered."""

TITLES: dict[str, str] = {
    "slack_app": "Slack bot",
    "slack_app_routing": "Slack bot: choosing the repository",
    "posthog_code": "PostHog Code",
    "llm_gateway": "LLM gateway, unmetered",
}
"""The products in words."""

ALIASES = {"slack-posthog-code": "slack_app_routing"}


def canonical(name: str) -> str | None:
    """Return the product's canonical name for a name or alias, None if it is unknown."""
    name = ALIASES.get(name, name)
    return name if name in BUCKETS else None
