"""What a call costs in dollars, exactly.

The rates come from `genai-prices` (offline), or from the operator if a model is overridden. The
package takes a quarter of a millisecond for one price, so a model's rates are read once a day and
multiplied here. A test checks that both get the same results.

A missing price never means free: it is None here, and a call that could need it is refused.
"""

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import genai_prices
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from gateway.metering.usage import Usage
from gateway.money import price_list

MILLION = Decimal(1_000_000)
THOUSAND = Decimal(1_000)
_DAY = 86_400  # seconds
OPERATOR = "operator"  # in place of a price list's version
# https://platform.claude.com/docs/en/about-claude/pricing#data-residency-pricing
REGIONS_AT_NO_SURCHARGE = frozenset({None, "global", "not_available"})
DEAREST_REGION = "us"
DEAR_REGIONS = frozenset({DEAREST_REGION})
REGION_FACTOR = Decimal("1.1")
_NO_TIER = ((0, Decimal(0)),)
Tiers = tuple[tuple[int, Decimal], ...]

_PER_TOKEN = frozenset(
    {
        "input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok",
        "cache_write_12h_mtok", "input_audio_mtok", "output_audio_mtok", "input_image_mtok",
        "output_image_mtok",
    }
)  # fmt: skip
_PER_USE = frozenset(
    {
        "web_searches_kcount", "web_search_previews_kcount", "storage_searches_kcount",
        "code_executions_kcount", "image_generations_kcount",
    }
)  # fmt: skip
_PRICED = _PER_TOKEN | _PER_USE
# Published but unused: OpenAI does not report cached audio or images separately from cached text.
_WITHIN_OTHERS = frozenset({"cache_audio_read_mtok", "cache_image_read_mtok"})
# Service tiers at the standard price: OpenAI's default and prepaid ones, and all of Anthropic's.
_STANDARD_TIERS = {
    "openai": frozenset({None, "auto", "default", "standard", "scale"}),
    "anthropic": frozenset({None, "auto", "standard", "standard_only", "priority", "batch"}),
}


class UnknownPrice(LookupError):
    """The price is unknown, so a billable call must not be made."""


# Tools that are paid per use: the count in `Usage`, and the rate.
_USES = {
    "web_searches": "web_search",
    "web_search_previews": "web_search_preview",
    "file_searches": "file_search",
    "code_executions": "code_execution",
    "image_generations": "image_generation",
}
# Tokens that can have their own price: count, rate, and the rate of text tokens.
_MODALITIES = (
    ("audio_input", "audio_input", "input"),
    ("image_input", "image_input", "input"),
    ("audio_output", "audio_output", "output"),
    ("image_output", "image_output", "output"),
)
# The keys of tool prices in GATEWAY_PRICE_OVERRIDES.
OPERATOR_KEYS = {
    "web_search": "web_searches_kcount",
    "web_search_preview": "web_search_previews_kcount",
    "file_search": "storage_searches_kcount",
    "code_execution": "code_executions_kcount",
    "image_generation": "image_generations_kcount",
}


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars per token, or per use, of one model.

    A token rate is a list of pairs: the total input above which a rate applies, and the rate. None
    means that no price is known.
    """

    input: Tiers
    output: Tiers
    cache_read: Tiers
    cache_write_5m: Tiers
    cache_write_1h: Tiers
    cache_write_12h: Tiers
    audio_input: Tiers | None
    audio_output: Tiers | None
    image_input: Tiers | None
    image_output: Tiers | None
    web_search: Decimal | None
    web_search_preview: Decimal | None
    file_search: Decimal | None
    code_execution: Decimal | None
    image_generation: Decimal | None
    version: str
    context_window: int

    @property
    def writes_cost_more(self) -> bool:
        """Whether cache writes cost more than plain input. OpenAI writes without being asked."""
        return self.cache_write_5m != self.input

    def of_use(self, tool: str) -> Decimal | None:
        """Return the price of one use of a tool, or None if it is not known."""
        price: Decimal | None = getattr(self, tool)
        return price

    def cost(self, usage: Usage) -> Decimal:
        """Return the exact price of a call, without parts that have no price (see `unpriced`)."""
        total = usage.all_input
        cost = usage.input * _rate(self.input, total) + usage.output * _rate(self.output, total)
        if usage.cache_read:
            cost += usage.cache_read * _rate(self.cache_read, total)
        if usage.cache_write_5m:
            cost += usage.cache_write_5m * _rate(self.cache_write_5m, total)
        if usage.cache_write_1h:
            cost += usage.cache_write_1h * _rate(self.cache_write_1h, total)
        if usage.cache_write_12h:
            cost += usage.cache_write_12h * _rate(self.cache_write_12h, total)
        for count, rate, text in _MODALITIES:
            tokens, tiers = getattr(usage, count), getattr(self, rate)
            if tokens and tiers is not None:
                tokens = min(tokens, getattr(usage, text))
                cost += tokens * (_rate(tiers, total) - _rate(getattr(self, text), total))
        if usage.inference_geo not in REGIONS_AT_NO_SURCHARGE:
            cost *= REGION_FACTOR  # only tokens cost more there, not tools
        for count, tool in _USES.items():
            uses = getattr(usage, count)
            if uses:
                cost += uses * (getattr(self, tool) or 0)
        return cost

    def unpriced(self, usage: Usage) -> list[str]:
        """Return the parts of a usage that have no price.

        Image input is priced as text if it has no price of its own, as providers do.
        """
        parts = [
            count
            for count, tool in _USES.items()
            if getattr(usage, count) and getattr(self, tool) is None
        ]
        parts += [
            count
            for count, rate, _ in _MODALITIES
            if getattr(usage, count) and getattr(self, rate) is None and count != "image_input"
        ]
        if usage.inference_geo not in REGIONS_AT_NO_SURCHARGE | DEAR_REGIONS:
            parts.append("inference_geo")
        return parts

    def bound(
        self,
        input_tokens: int,
        output_tokens: int,
        *,
        cached: bool,
        searches: int,
        tools: Collection[str] = ("web_search",),
        cached_for_long: bool = False,
    ) -> Decimal:
        """Return the most that a call of this size can cost.

        `searches` is how often any of `tools` may be used. Raises `UnknownPrice` if one of them has
        no price.
        """
        kinds = [self.input, self.image_input]
        if cached:
            kinds += [self.cache_write_5m, self.cache_write_1h, self.cache_read]
        if cached_for_long:
            kinds.append(self.cache_write_12h)
        cost = input_tokens * _highest(input_tokens, *kinds) + output_tokens * _highest(
            input_tokens, self.output, self.image_output
        )
        if searches and tools:
            cost += searches * max(self._known(tool) for tool in tools)
        return cost

    def _known(self, tool: str) -> Decimal:
        price = self.of_use(tool)
        if price is None:
            raise UnknownPrice(f"no price is known for {tool}")
        return price

    def dearer(self, other: "Rates") -> "Rates":
        """Return rates that are, for each part, the higher of the two."""
        return replace(
            self,
            input=_dearer(self.input, other.input),
            output=_dearer(self.output, other.output),
            cache_read=_dearer(self.cache_read, other.cache_read),
            cache_write_5m=_dearer(self.cache_write_5m, other.cache_write_5m),
            cache_write_1h=_dearer(self.cache_write_1h, other.cache_write_1h),
            cache_write_12h=_dearer(self.cache_write_12h, other.cache_write_12h),
        )

    def in_a_region(self) -> "Rates":
        """Return these rates with the regional surcharge."""
        return replace(
            self,
            input=_times(self.input, REGION_FACTOR),
            output=_times(self.output, REGION_FACTOR),
            cache_read=_times(self.cache_read, REGION_FACTOR),
            cache_write_5m=_times(self.cache_write_5m, REGION_FACTOR),
            cache_write_1h=_times(self.cache_write_1h, REGION_FACTOR),
            cache_write_12h=_times(self.cache_write_12h, REGION_FACTOR),
        )


class Prices:
    """Rates by provider, model and service tier."""

    def __init__(self, overrides: dict[str, Any], *, openai_in_a_region: bool = False) -> None:
        """`openai_in_a_region`: OpenAI calls go to a regional endpoint."""
        self._overrides = {
            (provider, model): _operator_rates(provider, model, price)
            for model, price in overrides.items()
            for provider in _STANDARD_TIERS
        }
        self._in_a_region = openai_in_a_region
        self._cache: dict[tuple[str, str, str | None, bool], Rates] = {}
        self._dearest: dict[tuple[str, str], Rates] = {}
        self._day: float | None = None  # on which the rates were read

    def rates(
        self, provider: str, model: str, service_tier: str | None = None, fast: bool = False
    ) -> Rates:
        """Return the rates in force today. `fast` means Anthropic's higher speed.

        Raises `UnknownPrice` if the model, its service tier or its speed has no price.
        """
        override = self._overrides.get((provider, model))
        if override is not None:
            if fast:
                raise UnknownPrice(f"no price is known for {model} at a higher speed")
            return override
        day = time.time() // _DAY
        if day != self._day or len(self._cache) > 10_000:
            self._day = day
            self.forget()
        key = (provider, model, service_tier, fast)
        rates = self._cache.get(key)
        if rates is None:
            try:
                rates = self._published(provider, model, service_tier, fast)
            except LookupError:
                rates = None if fast else self._overrides.get((provider, "*"))
                if rates is None:
                    raise UnknownPrice(f"no price is known for {model}") from None
            self._cache[key] = rates
        return rates

    def dearest(self, provider: str, model: str) -> Rates:
        """Return the rates of a model's dearest published service tier."""
        rates = self.rates(provider, model)
        if rates.version == OPERATOR:
            return rates
        key = (provider, model)
        dearest = self._dearest.get(key)
        if dearest is None:
            dearest = rates
            for tier in price_list.tiers(price_list.find(provider, model)):
                with suppress(UnknownPrice):  # not in force today
                    dearest = dearest.dearer(self.rates(provider, model, tier))
            self._dearest[key] = dearest
        return dearest

    def forget(self) -> None:
        """Forget the rates that were read so far."""
        self._cache.clear()
        self._dearest.clear()

    def is_standard(self, provider: str, service_tier: str | None) -> bool:
        """Return whether a service tier, or None for no tier, has the standard price."""
        return service_tier in _STANDARD_TIERS[provider]

    def is_alias(self, provider: str, asked: str, served: str) -> bool:
        """Return whether two names mean one model: they differ in the date, or share a price."""
        if price_list.undated(asked) == price_list.undated(served):
            return True
        try:
            return price_list.find(provider, asked) is price_list.find(provider, served)
        except LookupError:
            return False

    def _published(self, provider: str, model: str, service_tier: str | None, fast: bool) -> Rates:
        info = price_list.find(provider, model)
        price = _price_in_force(provider, info, service_tier, fast, datetime.now(UTC))
        unsupported = {
            key
            for key, value in vars(price).items()
            if value is not None and key not in _PRICED | _WITHIN_OTHERS
        }
        if unsupported or price.input_mtok is None or price.output_mtok is None:
            raise LookupError(model)
        version = f"genai-prices {genai_prices.__version__}"
        rates = _rates(provider, model, vars(price), version, info.context_window or 1_000_000)
        regional = provider == "openai" and self._in_a_region
        return (
            rates.in_a_region() if regional and price_list.costs_more_in_a_region(model) else rates
        )


def _price_in_force(
    provider: str, info: ModelInfo, service_tier: str | None, fast: bool, now: datetime
) -> ModelPrice:
    standard = info.get_prices(now, None)
    if fast:
        price = info.get_prices(now, {"speed": "fast"})
        if price == standard:
            raise LookupError(info.id)  # the higher speed has no published price
        return price
    if service_tier in _STANDARD_TIERS[provider]:
        return standard
    if service_tier is None or not price_list.has_tier(info, service_tier, now):
        raise LookupError(info.id)
    return info.get_prices(now, {"service_tier": service_tier})


def _rate(tiers: Tiers, total_input: int) -> Decimal:
    rate = tiers[0][1]
    for start, price in tiers:
        if total_input > start:
            rate = price
    return rate


def _highest(total_input: int, *kinds: Tiers | None) -> Decimal:
    """Return the highest of these rates for a call with at most this much input."""
    return max(
        price
        for tiers in kinds
        if tiers is not None
        for start, price in tiers
        if start == 0 or total_input > start
    )


def _dearer(one: Tiers, other: Tiers) -> Tiers:
    starts = sorted({start for start, _ in (*one, *other)})
    return tuple((start, max(_rate(one, start + 1), _rate(other, start + 1))) for start in starts)


def _times(tiers: Tiers, factor: Decimal) -> Tiers:
    return tuple((start, price * factor) for start, price in tiers)


def _operator_rates(provider: str, model: str, price: dict[str, Any]) -> Rates:
    """Read one entry of GATEWAY_PRICE_OVERRIDES: dollars per million tokens or thousand uses."""
    unknown = set(price) - _PRICED - {"context_window"}
    if unknown or not {"input_mtok", "output_mtok"} <= set(price):
        raise ValueError(
            f"GATEWAY_PRICE_OVERRIDES: {model} needs input_mtok and output_mtok and may have "
            f"{', '.join(sorted(_PRICED))} and context_window"
        )
    try:
        decimals = {key: Decimal(str(value)) for key, value in price.items() if key in _PRICED}
        window = int(price.get("context_window", 1_000_000))
    except (InvalidOperation, TypeError, ValueError):
        raise ValueError(f"GATEWAY_PRICE_OVERRIDES: a price of {model} is not a number") from None
    if window < 1 or any(not value.is_finite() or value < 0 for value in decimals.values()):
        raise ValueError(f"GATEWAY_PRICE_OVERRIDES: a price of {model} is out of range")
    return _rates(provider, model, decimals, OPERATOR, window)


def _rates(
    provider: str, model: str, price: dict[str, Any], version: str, context_window: int
) -> Rates:
    """Return the rates of a price list entry, completed with the provider's general prices."""
    each = _per_token(price.get("input_mtok"))
    written = _per_token(price.get("cache_write_mtok")) or each
    # If the one-hour cache has no price, Anthropic's rule applies: twice the input.
    # https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#pricing
    twice = _times(each or _NO_TIER, Decimal(2))
    doubles = provider == "anthropic" and price.get("cache_write_mtok") is not None
    hour = _per_token(price.get("cache_write_1h_mtok")) or (twice if doubles else written)
    # Twelve hours cost twice as much as OpenAI's default thirty minutes.
    # https://developers.openai.com/api/docs/models/gpt-6.1-terra
    half_day = _per_token(price.get("cache_write_12h_mtok")) or _times(
        written or _NO_TIER, Decimal(2)
    )
    preview = price_list.web_search_previews(model) if provider == "openai" else None
    return Rates(
        input=each or _NO_TIER,
        output=_per_token(price.get("output_mtok")) or _NO_TIER,
        cache_read=_per_token(price.get("cache_read_mtok")) or each or _NO_TIER,
        cache_write_5m=written or _NO_TIER,
        cache_write_1h=hour or _NO_TIER,
        cache_write_12h=half_day or _NO_TIER,
        audio_input=_per_token(price.get("input_audio_mtok")),
        audio_output=_per_token(price.get("output_audio_mtok")),
        image_input=_per_token(price.get("input_image_mtok")),
        image_output=_per_token(price.get("output_image_mtok")),
        web_search=_per_use(price, "web_searches_kcount", price_list.WEB_SEARCHES.get(provider)),
        web_search_preview=_per_use(price, "web_search_previews_kcount", preview),
        file_search=_per_use(
            price, "storage_searches_kcount", price_list.FILE_SEARCHES.get(provider)
        ),
        code_execution=_per_use(price, "code_executions_kcount", None),
        image_generation=_per_use(price, "image_generations_kcount", None),
        version=version,
        context_window=context_window,
    )


def _per_token(price: Decimal | TieredPrices | None) -> Tiers | None:
    if price is None:
        return None
    if isinstance(price, TieredPrices):
        tiers = ((tier.start, tier.price / MILLION) for tier in price.tiers)
        return ((0, price.base / MILLION), *tiers)
    return ((0, price / MILLION),)


def _per_use(price: dict[str, Any], key: str, published: Decimal | None) -> Decimal | None:
    thousand = price.get(key, published)
    if thousand is None:
        thousand = published
    if isinstance(thousand, TieredPrices):
        thousand = max(thousand.base, *(tier.price for tier in thousand.tiers))
    return None if thousand is None else thousand / THOUSAND
