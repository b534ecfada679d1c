"""The published prices of models: `genai-prices` by exact name, and prices that it lacks.

The package matches models by prefix, so it could take one name for another model
(`claude-haiku-4-5,claude-opus-4-5`). Here a name has to be listed, or be a listed name with a date.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from functools import cache

from genai_prices import data_snapshot
from genai_prices.types import ModelInfo

# Dated names: claude-sonnet-4-5-20250929, gpt-5-mini-2025-08-07, claude-sonnet-4-5@20250929.
_DATE = re.compile(
    r"(?:[-@]20\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    r"|-20\d{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]))\Z"
)
_LATEST = "-latest"
# ft:<model>:<organization>:<suffix>:<id>
# https://developers.openai.com/api/docs/guides/supervised-fine-tuning
_FINE_TUNED = re.compile(r"(ft:[^:]+):[\w-]+:[\w-]*:\w+(?::ckpt-step-\d+)?\Z")
_UNFINISHED = re.compile(r"(?:[-@.]|-20\d\d|-0)\Z")  # a prefix that is no name by itself
# Documented names of which the package only lists a prefix.
_ALIASES = {"openai": {"computer-use-preview": "computer-use"}}

# Dollars per thousand uses. Each provider publishes one price for all of its models:
# https://platform.claude.com/docs/en/about-claude/pricing#tool-use-pricing and
# https://developers.openai.com/api/docs/pricing (built-in tools).
WEB_SEARCHES = {"anthropic": Decimal(10), "openai": Decimal(10)}
FILE_SEARCHES = {"openai": Decimal("2.5")}
# OpenAI's older `web_search_preview` costs less with reasoning models.
WEB_SEARCH_PREVIEWS = Decimal(25)
WEB_SEARCH_PREVIEWS_OF_REASONING = Decimal(10)
_REASONING = re.compile(r"(?:o\d|gpt-[5-9](?!.*-chat))")
# https://developers.openai.com/api/docs/guides/data-residency: a regional endpoint costs a tenth
# more for models released since 5 March 2026. The first was gpt-5.4.
_REGIONAL_HOST = re.compile(r"https?://[a-z]{2}\.api\.openai\.com(?::\d+)?(?:/|\Z)")
_BEFORE_REGIONS_COST_MORE = re.compile(
    r"(?:ft:)?(?:gpt-(?:3|4|5(?![.-]\d)|5[.-][0-3](?!\d))|o[134]|chatgpt-4o|codex-mini|computer-use)"
)


def find(provider: str, model: str) -> ModelInfo:
    """Return the published prices of a model. Raise `LookupError` if its name is not listed."""
    names = _names(provider)
    fine_tuned = _FINE_TUNED.match(model)
    if fine_tuned:
        info = names.get(_DATE.sub("", fine_tuned[1]))
    elif model.endswith(_LATEST) and model not in names:
        info = names.get(model.removesuffix(_LATEST))
    else:
        return _found(names.get(model) or names.get(_DATE.sub("", model)), model)
    return _found(info if info is not None and info.is_match(model) else None, model)


def _found(info: ModelInfo | None, model: str) -> ModelInfo:
    if info is None:
        raise LookupError(model)
    return info


def undated(model: str) -> str:
    """Return the name without a date or `-latest` at its end."""
    return _DATE.sub("", model).removesuffix(_LATEST)


def has_tier(info: ModelInfo, service_tier: str, now: datetime) -> bool:
    """Return whether a service tier has its own published price."""
    return any(
        variant.when.get("service_tier") == service_tier
        and (variant.constraint is None or variant.constraint.active(now))
        for variant in info.price_variants or ()
    )


def tiers(info: ModelInfo) -> set[str]:
    """Return the service tiers that the price list names for a model."""
    named = (variant.when.get("service_tier") for variant in info.price_variants or ())
    return {tier for tier in named if isinstance(tier, str)}


def web_search_previews(model: str) -> Decimal:
    """Return the price in dollars of a thousand searches with OpenAI's older tool."""
    reasons = _REASONING.match(model)
    return WEB_SEARCH_PREVIEWS_OF_REASONING if reasons else WEB_SEARCH_PREVIEWS


def is_regional(url: str) -> bool:
    """Return whether an OpenAI address is a regional endpoint."""
    return _REGIONAL_HOST.match(url) is not None


def costs_more_in_a_region(model: str) -> bool:
    """Return whether a regional endpoint charges more for an OpenAI model."""
    return _BEFORE_REGIONS_COST_MORE.match(model) is None


@cache
def _names(provider: str) -> dict[str, ModelInfo]:
    """Return all listed names. Exact names take precedence over prefixes."""
    [found] = [each for each in data_snapshot.get_snapshot().providers if each.id == provider]
    names: dict[str, ModelInfo] = {}
    for kind in ("equals", "starts_with"):
        for info in found.models:
            for name in _clauses(info.match, kind):
                if not _UNFINISHED.search(name):
                    names.setdefault(name, info)
        if kind == "equals":
            for info in found.models:
                names.setdefault(info.id, info)
    for alias, name in _ALIASES.get(provider, {}).items():
        if name in names:
            names.setdefault(alias, names[name])
    return names


def _clauses(match: object, kind: str) -> Iterator[str]:
    value = getattr(match, kind, None)
    if isinstance(value, str):
        yield value
    for inner in getattr(match, "or_", ()):
        yield from _clauses(inner, kind)
