"""What a call is charged if its answer names another tier, speed or model than was asked for."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from gateway.metering.usage import ExtraUsage, Usage
from gateway.money.charges import charge, rates_given
from gateway.money.prices import Prices
from gateway.money.usage_events import CallRecord
from gateway.telemetry import metrics
from tests.gateway.money.test_components import RECORD

OURS = {"ours": {"input_mtok": "1", "output_mtok": "2"}}
USAGE = Usage(1_000, output=100)


def record_of(model: str) -> CallRecord:
    provider = "anthropic" if model.startswith("claude") else "openai"
    return msgspec.convert({**RECORD, "model": model, "provider": provider}, CallRecord)


def cost_of(model: str, usage: Usage, tools: tuple[str, ...] = ()) -> Decimal:
    """Return what a call to a model of its provider is charged."""
    prices, record = Prices({}), record_of(model)
    expected = prices.rates(record.provider, model)
    cost, version = charge(prices, record, expected, usage, frozenset(tools))
    assert version == expected.version
    return cost


def unpriced(part: str) -> float:
    return metrics.UNPRICED.labels(part)._value.get()


def given(model: str, overrides: dict[str, Any] | None = None, **reported: Any) -> Any:
    """Return the rates of a call that was expected to have the standard ones."""
    prices, record = Prices(overrides or {}), record_of(model)
    expected = prices.rates(record.provider, model)
    return rates_given(prices, record, expected, Usage(**reported)), expected, prices


@pytest.mark.parametrize(
    ("model", "reported"),
    [
        ("gpt-5-mini", {}),
        ("gpt-5-mini", {"service_tier": "default"}),
        ("claude-opus-4-6", {"service_tier": "priority"}),  # Anthropic's tiers have one price
        ("claude-opus-4-6", {"service_tier": "standard", "fast": False}),
    ],
)
def test_a_standard_tier_has_the_expected_rates(model: str, reported: dict[str, Any]) -> None:
    rates, expected, _ = given(model, **reported)
    assert rates == expected


def test_the_tier_or_speed_that_was_reported_has_its_own_rates() -> None:
    rates, expected, prices = given("gpt-5-mini", service_tier="priority")
    assert rates == prices.rates("openai", "gpt-5-mini", "priority") != expected
    rates, expected, prices = given("claude-opus-5-5", fast=True)
    assert rates == prices.rates("anthropic", "claude-opus-5-5", None, fast=True) != expected


def test_the_default_tier_is_no_dearer_than_the_one_that_was_asked_for() -> None:
    prices, record = Prices({}), record_of("gpt-5-mini")
    priority = prices.rates("openai", "gpt-5-mini", "priority")
    assert rates_given(prices, record, priority, Usage(service_tier="default")) == prices.rates(
        "openai", "gpt-5-mini"
    )
    assert rates_given(prices, record, priority, Usage()) == priority


@pytest.mark.parametrize(
    ("reported", "part"),
    [({"service_tier": "nonsense"}, "service_tier"), ({"fast": True}, "speed")],
)
def test_a_tier_or_speed_without_a_price_has_the_dearest_and_is_reported(
    reported: dict[str, Any], part: str
) -> None:
    before = unpriced(part)
    rates, _, prices = given("gpt-5-mini", **reported)
    assert rates.cost(USAGE) == prices.dearest("openai", "gpt-5-mini").cost(USAGE)
    assert unpriced(part) == before + 1
    prices, record = Prices(OURS), record_of("nobody-knows")
    expected = Prices(OURS).rates("openai", "ours")
    assert rates_given(prices, record, expected, Usage(**reported)) == expected


def test_a_search_with_the_older_tool_has_its_price() -> None:
    searched = Usage(1_000, output=100, web_searches=3, web_search_previews=1)
    rates = Prices({}).rates("openai", "gpt-4o")
    assert cost_of("gpt-4o", searched, ("web_search_preview",)) == rates.cost(USAGE) + Decimal(
        "0.1"
    )
    assert cost_of("gpt-4o", searched) == rates.cost(USAGE) + Decimal("0.055")
    assert cost_of("gpt-4o", USAGE, ("web_search_preview",)) == rates.cost(USAGE)


@pytest.mark.parametrize(
    ("asked", "served", "charged", "priced_at"),
    [
        ("gpt-4o-mini", "gpt-4o", "gpt-4o", "served"),
        ("gpt-4o", "gpt-4o-mini", "gpt-4o", "asked"),
        ("gpt-4o", "a-model-nobody-knows", "gpt-4o", "unknown"),
        ("gpt-4o", "gpt-4o", "gpt-4o", None),
    ],
)
def test_the_dearer_of_the_model_that_answered_and_the_one_asked_for_is_charged(
    asked: str, served: str, charged: str, priced_at: str | None
) -> None:
    counters = {
        name: metrics.OTHER_MODEL.labels(name)._value for name in ("unknown", "asked", "served")
    }
    before = {name: counter.get() for name, counter in counters.items()}
    usage = msgspec.structs.replace(USAGE, model=served)
    assert cost_of(asked, usage) == Prices({}).rates("openai", charged).cost(USAGE)
    counted = {name for name, counter in counters.items() if counter.get() > before[name]}
    assert counted == ({priced_at} if priced_at else set())


def test_another_model_has_its_standard_price_if_it_lacks_the_tier() -> None:
    usage = msgspec.structs.replace(USAGE, model="gpt-4.1", service_tier="flex")
    assert cost_of("gpt-5-nano", usage) == Prices({}).rates("openai", "gpt-4.1").cost(USAGE)


@pytest.mark.parametrize(
    ("model", "charged"),
    [
        (None, "claude-haiku-4-5"),
        ("claude-haiku-4-5", "claude-haiku-4-5"),
        ("claude-opus-4-1", "claude-opus-4-1"),
        ("a-model-nobody-knows", "claude-haiku-4-5"),
    ],
)
def test_what_another_model_took_part_in_is_charged_in_addition(
    model: str | None, charged: str
) -> None:
    prices, before = Prices({}), unpriced("model")
    usage = msgspec.structs.replace(USAGE, extra=(ExtraUsage(model, Usage(10, output=7)),))
    own = prices.rates("anthropic", "claude-haiku-4-5").cost(USAGE)
    more = prices.rates("anthropic", charged).cost(Usage(10, output=7))
    assert cost_of("claude-haiku-4-5", usage) == own + more
    assert unpriced("model") == before + (model == "a-model-nobody-knows")
