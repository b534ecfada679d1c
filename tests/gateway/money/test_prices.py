"""Prices are exact and as published, and a missing one is never zero."""

from decimal import Decimal

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metering.usage import Usage
from gateway.money import prices
from gateway.money.prices import Prices, UnknownPrice
from gateway.money.usage_events import to_micro, to_micro_bound

MODELS = [
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-haiku-4-5"),
    ("anthropic", "claude-opus-4-6"),
    ("anthropic", "claude-sonnet-5"),
    ("openai", "gpt-4o"),
    ("openai", "gpt-4.1-mini"),
    ("openai", "gpt-5"),
]
TOKENS = st.one_of(st.integers(0, 1000), st.integers(0, 600_000))


@given(
    st.sampled_from(MODELS), TOKENS, TOKENS, TOKENS, TOKENS, TOKENS, st.integers(0, 5),
    st.sampled_from([None, "priority"]),
)  # fmt: skip
def test_a_cost_is_what_the_price_package_says(
    model, new, read, five, hour, output, searches, tier
):
    provider, name = model
    if provider == "openai":
        five = hour = 0
    else:
        tier = None
    usage = Usage(new, read, five, hour, output, searches, service_tier=tier)
    expected = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=new + read + five + hour,
            cache_read_tokens=read,
            cache_write_tokens=five + hour,
            cache_write_1h_tokens=hour,
            output_tokens=output,
            web_searches=searches,
        ),
        name,
        provider_id=provider,
        price_context={"service_tier": tier} if tier else None,
    )
    rates = Prices({}).rates(provider, name, tier)
    assert rates.cost(usage) == expected.total_price
    bound = rates.bound(new + read + five + hour, output, cached=True, searches=searches)
    assert bound >= rates.cost(usage)


@pytest.mark.parametrize(
    ("provider", "model", "usage", "dollars"),
    [
        ("anthropic", "claude-sonnet-4-5", Usage(1_000_000 // 10, output=1000), "0.315"),
        # with more than 200,000 input tokens, every token has the long-context price
        ("anthropic", "claude-sonnet-4-5", Usage(200_000, output=1000), "0.615"),
        ("anthropic", "claude-sonnet-4-5", Usage(200_001, output=1000), "1.222506"),
        ("anthropic", "claude-sonnet-4-5", Usage(1, 200_000, output=1000), "0.142506"),
        ("anthropic", "claude-haiku-4-5", Usage(10, 20, 30, 40, 50), "0.0003795"),
        ("openai", "gpt-4o", Usage(60, 40, output=20), "0.0004"),
        ("anthropic", "claude-haiku-4-5", Usage(web_searches=3), "0.03"),
    ],
)
def test_hand_computed_examples(provider, model, usage, dollars) -> None:
    assert Prices({}).rates(provider, model).cost(usage) == Decimal(dollars)


def test_an_unknown_model_has_no_price() -> None:
    with pytest.raises(UnknownPrice):
        Prices({}).rates("anthropic", "a-model-nobody-knows")


def test_an_operator_sets_prices_for_one_model_or_for_all_unknown_ones() -> None:
    price = {"input_mtok": "1", "output_mtok": "2"}
    prices = Prices({"ours": price, "*": {"input_mtok": "10", "output_mtok": "20"}})
    assert prices.rates("openai", "ours").cost(Usage(1_000_000)) == 1
    assert prices.rates("openai", "anything").cost(Usage(1_000_000)) == 10
    assert prices.rates("openai", "ours").version == "operator"
    assert prices.rates("openai", "gpt-4o").version.startswith("genai-prices ")


@pytest.mark.parametrize("price", [{}, {"input_mtok": "1"}, {"input_mtok": 1, "output": 2}])
def test_an_incomplete_operators_price_is_refused_at_startup(price) -> None:
    with pytest.raises(ValueError, match="GATEWAY_PRICE_OVERRIDES"):
        Prices({"ours": price})


@pytest.mark.parametrize(
    ("dollars", "micro", "bound"),
    [
        ("0.1", 12_000_000, 12_000_000),
        ("0.0000000041", 0, 1),
        ("0.00000000416666666667", 1, 1),
        ("0.0000000125", 2, 2),  # 1.5 rounds half to even
        ("0.0000000208333333333333333", 2, 3),  # 2.5 does too
    ],
)
def test_credits_are_rounded_once_half_to_even_and_bounds_up(dollars, micro, bound) -> None:
    assert to_micro(Decimal(dollars), Decimal(120)) == micro
    assert to_micro_bound(Decimal(dollars), Decimal(120)) == bound


def test_a_higher_speed_has_its_own_price_or_none() -> None:
    prices = Prices({"claude-opus-4-6": {"input_mtok": "1", "output_mtok": "1"}})
    fast = prices.rates("anthropic", "claude-opus-5-5", None, fast=True)
    expected = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=10, output_tokens=1000),
        "claude-opus-5-5",
        provider_id="anthropic",
        price_context={"speed": "fast"},
    )
    assert fast.cost(Usage(10, output=1000)) == expected.total_price
    for model in ("claude-haiku-4-5", "claude-opus-4-6"):
        with pytest.raises(UnknownPrice):
            prices.rates("anthropic", model, None, fast=True)


@pytest.mark.parametrize(
    "overrides", [{}, {"claude-opus-4-6": {"input_mtok": "1", "output_mtok": "2"}}]
)
def test_a_dearer_region_is_charged_more(overrides) -> None:
    rates = Prices(overrides).rates("anthropic", "claude-opus-4-6")
    there = rates.cost(Usage(1000, output=10, inference_geo="us"))
    assert there == rates.cost(Usage(1000, output=10)) * Decimal("1.1")
    searched = rates.cost(Usage(1000, output=10, web_searches=3, inference_geo="us"))
    assert searched == there + 3 * rates.web_search, "searches cost the same everywhere"


TIERS = [
    ((0, Decimal(2)),),
    ((0, Decimal(1)), (200_000, Decimal(3))),
    ((0, Decimal(3)), (200_000, Decimal(1))),
    ((0, Decimal(1)), (128_000, Decimal(2)), (200_000, Decimal(4))),
    ((0, Decimal(5)), (128_000, Decimal(1)), (272_000, Decimal(2))),
]


@pytest.mark.parametrize("one", TIERS)
@pytest.mark.parametrize("other", TIERS)
def test_the_dearer_of_two_tariffs_is_so_for_every_size(one, other) -> None:
    dearer = prices._dearer(one, other)
    for start in (0, 128_000, 200_000, 272_000):
        for size in (start, start + 1):
            rates = (prices._rate(one, size), prices._rate(other, size))
            assert prices._rate(dearer, size) == max(rates), size
