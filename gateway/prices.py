"""What a call costs in dollars, exactly.

The rates come from `genai-prices` (offline), or from the operator where a model is overridden. The
package takes a quarter of a millisecond for one price, so the rates of a model are read from it
once a day and multiplied here; a test holds both to the same results.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import genai_prices
import msgspec
from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

MILLION = Decimal(1_000_000)
THOUSAND = Decimal(1_000)
_DAY = 86_400  # seconds
# https://platform.claude.com/docs/en/about-claude/pricing#data-residency-pricing
DEAR_REGIONS = frozenset({"us"})
REGION_FACTOR = Decimal("1.1")
_NO_TIER = ((0, Decimal(0)),)
Tiers = tuple[tuple[int, Decimal], ...]

_PRICED = {
    "input_mtok",
    "output_mtok",
    "cache_read_mtok",
    "cache_write_mtok",
    "cache_write_1h_mtok",
    "web_searches_kcount",
    "storage_searches_kcount",
}
# Prices of other modalities: calls that would need them are refused or never made here.
_OTHER_MODALITIES = ("audio", "image", "video", "citation", "reasoning", "text")


class UnknownPrice(LookupError):
    """Nobody knows what this model costs: a billable call of it must not be made."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What a provider reported. The four kinds of input exclude one another.

    Tokens of audio and images are parts of those, not further ones: `audio_input` and
    `image_input` of the input (cached or not), `audio_output` of the output. None where nothing
    was said: of the tier, the speed (`fast`), the region, and the model that served the call.
    `web_searches` are searches alone; pages that were opened are not among them.
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    web_searches: int = 0
    file_searches: int = 0
    service_tier: str | None = None
    fast: bool | None = None
    inference_geo: str | None = None
    apart: "tuple[Apart, ...]" = ()
    model: str | None = None
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    web_fetches: int = 0
    code_executions: int = 0  # requests (Anthropic) or calls of the interpreter (OpenAI)
    image_generations: int = 0

    def together(self) -> "Usage":
        """Return the tokens of all models that took part, for those who only count."""
        if not self.apart:
            return self
        all_of_it = (self, *(each.usage for each in self.apart))
        sums = {
            name: sum(getattr(each, name) for each in all_of_it)
            for name in ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
        }
        return msgspec.structs.replace(self, apart=(), **sums)

    @property
    def all_input(self) -> int:
        """Every input token, however it was cached: what long-context prices go by."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h


class Apart(msgspec.Struct, frozen=True, gc=False):
    """What a provider did besides, priced by itself: on another model, unless `model` is None."""

    model: str | None
    usage: Usage


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars per token (or search) of one model: pairs (from how much input on, rate)."""

    input: Tiers
    output: Tiers
    cache_read: Tiers
    cache_write_5m: Tiers
    cache_write_1h: Tiers
    web_search: Decimal
    file_search: Decimal
    version: str
    context_window: int

    @property
    def writes_cost_more(self) -> bool:
        """Whether writing a cache costs more than plain input (OpenAI does it without a word)."""
        return self.cache_write_5m != self.input

    def cost(self, usage: Usage) -> Decimal:
        """Return the exact price of a call."""
        total = usage.all_input
        cost = usage.input * _rate(self.input, total) + usage.output * _rate(self.output, total)
        if usage.cache_read:
            cost += usage.cache_read * _rate(self.cache_read, total)
        if usage.cache_write_5m:
            cost += usage.cache_write_5m * _rate(self.cache_write_5m, total)
        if usage.cache_write_1h:
            cost += usage.cache_write_1h * _rate(self.cache_write_1h, total)
        if usage.inference_geo in DEAR_REGIONS:  # tokens cost more there, searches do not
            cost *= REGION_FACTOR
        if usage.web_searches:
            cost += usage.web_searches * self.web_search
        if usage.file_searches:
            cost += usage.file_searches * self.file_search
        return cost

    def bound(
        self, input_tokens: int, output_tokens: int, *, cached: bool, searches: int
    ) -> Decimal:
        """Return the most that a call of this size can cost."""
        rate = _rate(self.input, input_tokens)
        if cached:
            writes = (self.cache_write_5m, self.cache_write_1h, self.cache_read)
            rate = max(rate, *(_rate(tiers, input_tokens) for tiers in writes))
        return (
            input_tokens * rate
            + output_tokens * _rate(self.output, input_tokens)
            + searches * max(self.web_search, self.file_search)
        )


class Prices:
    """Rates by provider, model and service tier."""

    def __init__(self, overrides: dict[str, Any]) -> None:
        self._overrides = {
            model: _operator_rates(model, price) for model, price in overrides.items()
        }
        self._cache: dict[tuple[str, str, str | None, bool], Rates] = {}
        self._day = time.time() // _DAY

    def rates(
        self, provider: str, model: str, service_tier: str | None = None, fast: bool = False
    ) -> Rates:
        """Return the rates in force today, `fast` at Anthropic's higher speed.

        Raises `UnknownPrice`.
        """
        override = self._overrides.get(model)
        if override is not None:
            if fast:
                raise UnknownPrice(f"no price is known for {model} at a higher speed")
            return override
        day = time.time() // _DAY
        if day != self._day or len(self._cache) > 10_000:
            self._day = day
            self._cache.clear()
        key = (provider, model, service_tier, fast)
        rates = self._cache.get(key)
        if rates is None:
            try:
                now = datetime.now(UTC)
                rates = _published_rates(provider, model, service_tier, fast, now)
            except LookupError:
                rates = None if fast else self._overrides.get("*")
                if rates is None:
                    raise UnknownPrice(f"no price is known for {model}") from None
            self._cache[key] = rates
        return rates


def _rate(tiers: Tiers, total_input: int) -> Decimal:
    rate = tiers[0][1]
    for start, price in tiers[1:]:
        if total_input > start:
            rate = price
    return rate


def _published_rates(
    provider: str, model: str, service_tier: str | None, fast: bool, now: datetime
) -> Rates:
    info: ModelInfo
    _, info = data_snapshot.get_snapshot().find_provider_model(model, None, provider, None)
    context = {"service_tier": service_tier} if service_tier else {}
    if fast:
        context["speed"] = "fast"
    price = info.get_prices(now, context or None)
    if fast and price == info.get_prices(now, None):
        raise LookupError(model)  # no price of its own is published
    unsupported = {
        key
        for key, value in vars(price).items()
        if value is not None
        and key not in _PRICED
        and not any(modality in key for modality in _OTHER_MODALITIES)
    }
    if unsupported or price.input_mtok is None or price.output_mtok is None:
        raise LookupError(model)
    version = f"genai-prices {genai_prices.__version__}"
    return _rates(price, version, info.context_window or 1_000_000)


def _operator_rates(model: str, price: dict[str, Any]) -> Rates:
    """Read one entry of GATEWAY_PRICE_OVERRIDES: dollars per million tokens, as text."""
    unknown = set(price) - _PRICED - {"context_window"}
    if unknown or not {"input_mtok", "output_mtok"} <= set(price):
        raise ValueError(
            f"GATEWAY_PRICE_OVERRIDES: {model} needs input_mtok and output_mtok and may have "
            f"{', '.join(sorted(_PRICED))} and context_window"
        )
    decimals = {key: Decimal(str(value)) for key, value in price.items() if key in _PRICED}
    window = int(price.get("context_window", 1_000_000))
    return _rates(ModelPrice(**decimals), "operator", window)


def _rates(price: ModelPrice, version: str, context_window: int) -> Rates:
    each = _per_token(price.input_mtok)
    written = _per_token(price.cache_write_mtok) or each
    # Where no price is given for an hour's cache it is Anthropic's rule: twice the input.
    # https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#pricing
    twice = tuple((start, 2 * rate) for start, rate in each or _NO_TIER)
    hour = _per_token(price.cache_write_1h_mtok) or (twice if price.cache_write_mtok else written)
    return Rates(
        input=each or _NO_TIER,
        output=_per_token(price.output_mtok) or _NO_TIER,
        cache_read=_per_token(price.cache_read_mtok) or each or _NO_TIER,
        cache_write_5m=written or _NO_TIER,
        cache_write_1h=hour or _NO_TIER,
        web_search=_per_search(price.web_searches_kcount),
        file_search=_per_search(price.storage_searches_kcount),
        version=version,
        context_window=context_window,
    )


def _per_token(price: Decimal | TieredPrices | None) -> Tiers:
    if price is None:
        return ()
    if isinstance(price, TieredPrices):
        tiers = ((tier.start, tier.price / MILLION) for tier in price.tiers)
        return ((0, price.base / MILLION), *tiers)
    return ((0, price / MILLION),)


def _per_search(price: Decimal | TieredPrices | None) -> Decimal:
    return price / THOUSAND if isinstance(price, Decimal) else Decimal(0)
