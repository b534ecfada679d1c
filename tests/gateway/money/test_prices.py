"""Prices are exact and as published, and a missing one is never zero."""

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metering.usage import Usage
from gateway.money import price_list, prices
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


@pytest.mark.case("C6")
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


SONNET, TOOLS = ("anthropic", "claude-sonnet-4-5"), ("web_search", "web_search_preview")


@pytest.mark.parametrize(
    ("model", "size", "more", "dollars"),
    [
        (SONNET, 1_000, {}, "0.0045"),
        (SONNET, 1_000, {"cached": True}, "0.0075"),  # kept for an hour: $6 instead of $3
        (SONNET, 1_000, {"cached": True, "cached_for_long": True}, "0.009"),
        (SONNET, 200_000, {}, "0.6015"),
        (SONNET, 200_001, {}, "1.202256"),  # the long-context price
        (SONNET, 1_000, {"searches": 2}, "0.0245"),
        (SONNET, 1_000, {"searches": 2, "tools": ()}, "0.0045"),
        (("openai", "gpt-4o"), 1_000, {"searches": 2, "tools": TOOLS}, "0.0535"),
    ],
)
def test_a_bound_is_the_size_at_the_dearest_rate_that_may_apply(model, size, more, dollars) -> None:
    asked = {"cached": False, "searches": 0, **more}
    assert Prices({}).rates(*model).bound(size, 100, **asked) == Decimal(dollars)


def test_a_tool_without_a_price_has_no_bound() -> None:
    rates = Prices({}).rates(*SONNET)
    with pytest.raises(UnknownPrice):
        rates.bound(1, 1, cached=False, searches=1, tools=["code_execution"])


def test_the_dearest_tier_of_a_model_prices_what_may_have_been_any() -> None:
    usage, ours = Usage(1_000, 500, output=100), {"input_mtok": "1", "output_mtok": "2"}
    published = Prices({"gpt-5": ours})
    priority = published.rates("openai", "gpt-5-mini", "priority")
    for _ in range(2):
        assert published.dearest("openai", "gpt-5-mini").cost(usage) == priority.cost(usage)
    assert priority.cost(usage) > published.rates("openai", "gpt-5-mini").cost(usage)
    assert published.dearest("openai", "gpt-5") == published.rates("openai", "gpt-5")


@pytest.mark.parametrize("tier", ["nonsense", "ultra"])
def test_a_tier_that_a_model_does_not_have_is_not_taken_for_another(tier: str) -> None:
    assert Prices({}).rates("openai", "gpt-5-mini", "flex")
    with pytest.raises(UnknownPrice):
        Prices({}).rates("openai", "gpt-5-mini", tier)


@pytest.mark.parametrize("lacks", ["input_mtok", "output_mtok", None])
def test_a_model_with_a_part_that_has_no_price_here_has_none(
    monkeypatch: pytest.MonkeyPatch, lacks: str | None
) -> None:
    in_force = prices._price_in_force

    def incomplete(*asked: Any) -> Any:
        price = vars(in_force(*asked))
        return SimpleNamespace(**price | ({lacks: None} if lacks else {"audio_hours": Decimal(1)}))

    monkeypatch.setattr(prices, "_price_in_force", incomplete)
    with pytest.raises(UnknownPrice):
        Prices({}).rates("openai", "gpt-4o")


def test_rates_are_read_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    day = 86_400
    now = [5 * day]
    monkeypatch.setattr(prices, "time", SimpleNamespace(time=lambda: now[0]))
    published = Prices({})
    read = []
    in_force = prices._price_in_force
    monkeypatch.setattr(
        prices, "_price_in_force", lambda *asked: read.append(asked) or in_force(*asked)
    )
    for seconds, times in ((0, 1), (1, 1), (day - 1, 1), (day, 2), (day + 1, 2)):
        now[0] = 5 * day + seconds
        published.rates(*SONNET)
        assert len(read) == times, seconds


def test_what_was_dearest_yesterday_need_not_be_so_today(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(prices, "time", SimpleNamespace(time=lambda: now[0]))
    published = Prices({})
    standard = published.rates("openai", "gpt-5-mini")
    yesterday = published.dearest("openai", "gpt-5-mini")
    monkeypatch.setattr(price_list, "tiers", lambda _info: set())
    assert published.dearest("openai", "gpt-5-mini") == yesterday != standard
    now[0] += 86_400
    assert published.dearest("openai", "gpt-5-mini") == standard


def test_a_models_own_window_bounds_it() -> None:
    assert Prices({}).rates("openai", "gpt-4o").context_window == 128_000


def test_audio_without_a_price_is_priced_as_text_and_named() -> None:
    rates = Prices({}).rates("openai", "gpt-5")
    assert rates.cost(Usage(10, audio_input=5)) == rates.cost(Usage(10))


def test_what_has_no_price_is_named() -> None:
    rates = Prices({}).rates("openai", "gpt-5")
    used = Usage(10, audio_input=1, audio_output=1, image_input=1, image_output=1)
    assert rates.unpriced(used) == ["audio_input", "audio_output", "image_output"]
    for region, parts in (("us", []), (None, []), ("global", []), ("moon", ["inference_geo"])):
        assert rates.unpriced(Usage(10, inference_geo=region)) == parts


def test_only_anthropic_charges_more_for_writing_a_cache() -> None:
    assert Prices({}).rates(*SONNET).writes_cost_more
    assert not Prices({}).rates("openai", "gpt-4o").writes_cost_more


@pytest.mark.parametrize(
    ("provider", "price", "hour", "half_day"),
    [
        ("anthropic", {"cache_write_mtok": "5"}, "8", "10"),  # twice the input
        ("anthropic", {"cache_write_mtok": "5", "cache_write_1h_mtok": "7"}, "7", "10"),
        ("anthropic", {}, "4", "8"),
        ("openai", {"cache_write_mtok": "5"}, "5", "10"),
        ("openai", {"cache_write_12h_mtok": "9"}, "4", "9"),
    ],
)
def test_a_cache_lifetime_without_a_price_has_the_providers_rule(
    provider, price, hour, half_day
) -> None:
    ours = {"input_mtok": "4", "output_mtok": "0", **price}
    rates = Prices({"ours": ours}).rates(provider, "ours")
    million = 1_000_000
    assert rates.cost(Usage(cache_write_1h=million)) == Decimal(hour)
    assert rates.cost(Usage(cache_write_12h=million)) == Decimal(half_day)
    assert rates.cost(Usage(cache_read=million)) == 4, "a cache without a price is plain input"


def test_an_operators_price_of_images_is_used() -> None:
    ours = {"input_mtok": "1", "output_mtok": "2", "output_image_mtok": "30"}
    rates = Prices({"ours": ours}).rates("openai", "ours")
    assert rates.cost(Usage(output=1_000_000, image_output=1_000_000)) == 30


@pytest.mark.parametrize(
    ("more", "valid"),
    [
        ({"context_window": 0}, False),
        ({"context_window": 1}, True),
        ({"input_mtok": "0"}, True),
        ({"input_mtok": "-0.1"}, False),
        ({"input_mtok": "NaN"}, False),
    ],
)
def test_an_operators_price_may_be_nothing_but_not_less(more, valid) -> None:
    ours = {"ours": {"input_mtok": "1", "output_mtok": "2", **more}}
    if valid:
        assert Prices(ours).rates("openai", "ours")
        return
    with pytest.raises(ValueError, match="out of range"):
        Prices(ours)


def test_only_openais_older_tool_has_a_price_for_previews() -> None:
    assert Prices({}).rates(*SONNET).web_search_preview is None
    assert Prices({}).rates("openai", "gpt-4o").web_search_preview == Decimal("0.025")
    assert Prices({}).rates("openai", "gpt-5").web_search_preview == Decimal("0.01")


@pytest.mark.parametrize(
    ("url", "regional"),
    [
        ("https://eu.api.openai.com", True),
        ("https://us.api.openai.com/v1", True),
        ("https://api.openai.com", False),
        ("https://eu.api.openai.com.example.org", False),
    ],
)
def test_a_regional_endpoint_is_known_by_its_host(url: str, regional: bool) -> None:
    assert price_list.is_regional(url) is regional


@pytest.mark.parametrize(
    ("asked", "served", "same"),
    [
        ("gpt-5.6", "gpt-5.6-sol", True),
        ("gpt-5-mini", "gpt-5-mini-2025-08-07", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "a-model-nobody-knows", False),
    ],
)
def test_two_names_of_one_model_are_aliases(asked: str, served: str, same: bool) -> None:
    assert Prices({}).is_alias("openai", asked, served) is same


@pytest.mark.parametrize(
    ("provider", "tier", "standard"),
    [("openai", "default", True), ("openai", "priority", False), ("anthropic", "priority", True)],
)
def test_standard_tiers_have_the_standard_price(provider: str, tier: str, standard: bool) -> None:
    assert Prices({}).is_standard(provider, tier) is standard


TIERS = [
    ((0, Decimal(2)),),
    ((0, Decimal(1)), (200_000, Decimal(3))),
    ((0, Decimal(3)), (200_000, Decimal(1))),
    ((0, Decimal(1)), (128_000, Decimal(2)), (200_000, Decimal(4))),
    ((0, Decimal(5)), (128_000, Decimal(1)), (272_000, Decimal(2))),
    ((0, Decimal(1)), (200_000, Decimal(9)), (200_001, Decimal(1))),
]


@pytest.mark.parametrize("one", TIERS)
@pytest.mark.parametrize("other", TIERS)
def test_the_dearer_of_two_tariffs_is_so_for_every_size(one, other) -> None:
    dearer = prices._dearer(one, other)
    for start in (0, 128_000, 200_000, 272_000):
        for size in (start, start + 1):
            rates = (prices._rate(one, size), prices._rate(other, size))
            assert prices._rate(dearer, size) == max(rates), size
