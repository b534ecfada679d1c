"""The quota resources: buckets of credits that are limited separately.

Amounts are integers of micro-credits (1 credit = 1,000,000 micro-credits). One credit is one cent
of provider cost plus the bucket's markup, so `credits_per_usd` is 100 × (1 + markup).
"""

from dataclasses import dataclass
from decimal import Decimal

MICRO = 1_000_000
AI_CREDITS = "ai_credits"
POSTHOG_CODE_CREDITS = "posthog_code_credits"


@dataclass(frozen=True, slots=True)
class Resource:
    """A bucket: its name in the API and Redis, its price and whether it ever grants a grace."""

    name: str
    title: str
    credits_per_usd: Decimal
    has_grace: bool

    @property
    def markup_percent(self) -> Decimal:
        """What is added to the provider's price, in percent."""
        return self.credits_per_usd - 100


RESOURCES: dict[str, Resource] = {
    resource.name: resource
    for resource in (
        Resource(AI_CREDITS, "AI credits", Decimal(120), has_grace=False),
        Resource(POSTHOG_CODE_CREDITS, "PostHog Code credits", Decimal(100), has_grace=True),
    )
}


def format_credits(micro: int) -> str:
    """Return an amount in credits as text: at most two decimals, and "0" only for nothing."""
    if 0 < micro < MICRO // 100:
        return "<0.01"
    return f"{(Decimal(micro) / MICRO).quantize(Decimal('0.01')).normalize():,f}"
