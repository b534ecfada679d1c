"""What a call is charged: its usage, at the rates of the model and tier that served it.

Reported usage that has no price here is counted and logged.
"""

from decimal import Decimal

import msgspec
import structlog
from msgspec.structs import replace

from gateway.metering.usage import Usage
from gateway.money.prices import Prices, Rates, UnknownPrice
from gateway.money.usage_events import CallRecord
from gateway.telemetry import metrics

logger = structlog.get_logger("gateway.money.charges")
_PREVIEW = "web_search_preview"


class Limits(msgspec.Struct, frozen=True, gc=False):
    """Limits on the price of an estimate, in dollars, for the model that was asked for.

    `input` is the price to charge for the input, or None if the input was reported. `most` is the
    bound of the call.
    """

    input: Decimal | None
    most: Decimal


def charge(
    prices: Prices,
    record: CallRecord,
    expected: Rates,
    usage: Usage,
    tools: frozenset[str],
    *,
    free_code: bool = False,
    limits: Limits | None = None,
) -> tuple[Decimal, str]:
    """Return the price of a usage in dollars, and the version of the price list.

    `expected` are the rates of the model and tier that were asked for. `tools` are the provider's
    tools that the model was offered. If another model answered, its price is charged if that is
    known and dearer. `free_code` is True if the provider runs code without a charge because it
    searched. `limits` apply to an estimate only.
    """
    usage = _as_asked(usage, tools)
    if free_code:
        usage = replace(usage, code_executions=0)
    rates = rates_given(prices, record, expected, usage)
    cost, version = _within(limits, rates, usage), rates.version
    unpriced = rates.unpriced(usage)
    served = usage.model
    if served is not None and not prices.is_alias(record.provider, record.model, served):
        other = _known(prices, record, served, usage)
        dearer = other is not None and other.cost(usage) > cost
        if other is not None and dearer:
            cost, version, unpriced = other.cost(usage), other.version, other.unpriced(usage)
        metrics.OTHER_MODEL.labels(_priced_at(other, dearer=dearer)).inc()
        logger.error(
            "another model answered than was asked for",
            hold_id=record.uuid,
            asked=record.model,
            served=served,
        )
    cost += _extra_cost(prices, record, rates, usage)
    for part in unpriced:
        _report_unpriced(record, part)
    return cost, version


def _within(limits: Limits | None, rates: Rates, usage: Usage) -> Decimal:
    cost = rates.cost(usage)
    if limits is None:
        return cost
    if limits.input is not None:
        cost += limits.input - rates.cost(replace(usage, output=0))
    return min(cost, limits.most)


def _priced_at(other: Rates | None, *, dearer: bool) -> str:
    if other is None:
        return "unknown"
    return "served" if dearer else "asked"


def _as_asked(usage: Usage, tools: frozenset[str]) -> Usage:
    """Count searches as those of the tool that was offered; the answer doesn't say which ran."""
    if usage.web_searches and _PREVIEW in tools:
        return replace(
            usage,
            web_searches=0,
            web_search_previews=usage.web_search_previews + usage.web_searches,
        )
    return usage


def rates_given(prices: Prices, record: CallRecord, expected: Rates, usage: Usage) -> Rates:
    """Return the rates of the tier and speed that were reported, or else asked for."""
    provider, model, tier, fast = record.provider, record.model, usage.service_tier, usage.fast
    if not prices.is_standard(provider, tier):
        try:
            return prices.rates(provider, model, tier)
        except UnknownPrice:
            _report_unpriced(record, "service_tier")
            return _dearest(prices, record, expected)
    if fast is None and (tier is None or provider == "anthropic"):
        return expected  # Anthropic's tiers have the same price
    try:
        return prices.rates(provider, model, None, bool(fast))
    except UnknownPrice:
        _report_unpriced(record, "speed")
        return _dearest(prices, record, expected)


def _dearest(prices: Prices, record: CallRecord, expected: Rates) -> Rates:
    try:
        return expected.dearer(prices.dearest(record.provider, record.model))
    except UnknownPrice:
        return expected


def _known(prices: Prices, record: CallRecord, model: str, usage: Usage) -> Rates | None:
    """Return another model's rates at the same tier and speed, else its standard rates, or None."""
    for tier, fast in ((usage.service_tier, bool(usage.fast)), (None, False)):
        try:
            return prices.rates(record.provider, model, tier, fast)
        except UnknownPrice:
            continue
    return None


def _extra_cost(prices: Prices, record: CallRecord, own: Rates, usage: Usage) -> Decimal:
    """Return the price of extra usage. Each entry is priced like a separate call."""
    cost = Decimal(0)
    for each in usage.extra:
        rates = own
        if each.model is not None and each.model != record.model:
            other = _known(prices, record, each.model, usage)
            if other is None:
                metrics.UNPRICED.labels("model").inc()
                logger.error(
                    "no price is known for a model that took part",
                    hold_id=record.uuid,
                    model=each.model,
                )
            rates = other or own
        cost += rates.cost(replace(each.usage, inference_geo=usage.inference_geo))
    return cost


def _report_unpriced(record: CallRecord, part: str) -> None:
    metrics.UNPRICED.labels(part).inc()
    logger.error(
        "a part of a call has no price", hold_id=record.uuid, model=record.model, part=part
    )
