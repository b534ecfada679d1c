"""Admission: whether a call may be made, and what is reserved for it."""

from decimal import ROUND_FLOOR, Decimal
from functools import lru_cache
from typing import NamedTuple

import msgspec

from gateway.body.last_call import last_call_of
from gateway.body.requests import ModelRequest
from gateway.body.usage_bound import UsageBound, usage_bound_of
from gateway.call import Call
from gateway.errors import Refusal, bad_request, unavailable
from gateway.metering.usage import Usage
from gateway.money.holds import HoldResult, Holds, Reservation
from gateway.money.prices import OPERATOR_KEYS, REGION_FACTOR, Prices, Rates, UnknownPrice
from gateway.money.usage_events import CallRecord, new_record, to_micro_bound
from gateway.network.redis_connection import RedisError, RedisUnavailable
from gateway.products import Product
from gateway.refusals import denials, throttles, wrong_models
from gateway.refusals.reasons import Reason
from gateway.resolver.credentials import Caller
from gateway.resolver.quota import Payer, QuotaResolver
from gateway.settings import MICRO, Settings
from gateway.telemetry import metrics

# If Django's answer was not confirmed for this long, an admission counts as "open because unknown".
UNCONFIRMED_MS = 2_000
# Answers older than this are refreshed in the background.
REFRESH_MS = 300_000
# An output cap that the gateway adds may shrink to what is left, but not below a useful answer.
SMALLEST_OUTPUT_CAP = 256
MAX_REFUSED = 10_000
# Too little is left for the bound: of the account, or of a cap within it.
_TOO_LITTLE = frozenset({"short", "project_cap", "user_cap", "run_cap"})
# Service tiers that a caller may ask for. OpenAI's default "auto" means the tier that the operator
# set for the project there, which may be the dearest. "scale" is paid in advance.
_ANY_TIER = frozenset({None, "auto"})
_TIERS = {
    "openai": _ANY_TIER | {"default", "scale", "flex", "priority", "fast"},
    "anthropic": _ANY_TIER | {"standard_only"},
}


class Admission(msgspec.Struct, frozen=True, gc=False):
    """A call that may be made.

    - `account`: who pays; empty if nobody does.
    - `size`: the size of the body in bytes.
    - `tools`: the provider's tools that it may charge for.
    - `filtered`: whether the provider may also run code without a charge.
    - `input_bound`: the part of the bound that is not visible output.
    - `dearest`: the rates that the bound was computed with.
    - `asked`: the tier, the speed and the region that the caller asked for.
    - `reserve_micro`: what must be left of the run's cap after this call, for its last one.
    """

    record: CallRecord
    rates: Rates | None
    account: str
    credits_per_usd: Decimal
    bound: Decimal
    bound_micro: int
    size: int
    tools: frozenset[str] = frozenset()
    filtered: bool = False
    input_bound: Decimal = Decimal(0)
    dearest: Rates | None = None
    asked: Usage = Usage()
    reserve_micro: int = 0


class Admitted(NamedTuple):
    """An admitted call, and the body that the provider gets.

    `run_percent` is the percentage of its cap that the run had used or held before, or -1 if it has
    no cap.
    """

    admission: Admission
    body: bytes
    run_percent: int = -1


class Gate:
    """Admits calls, and reserves the most that a billable call can cost."""

    def __init__(
        self, settings: Settings, prices: Prices, resolver: QuotaResolver, holds: Holds
    ) -> None:
        self._settings = settings
        self._prices = prices
        self._resolver = resolver
        self._holds = holds
        # Recently refused buckets of projects, and credentials; the oldest come first.
        self._refused: dict[object, None] = {}

    async def admit(
        self, product: Product, caller: Caller, request: ModelRequest, call: Call
    ) -> Admitted:
        """Reserve the most that the call can cost. Raises `Refusal`."""
        if product.bucket is None:
            return self._unmetered(product, caller, request, call)
        wrong_models.check(product.name, request, self._prices)
        rates, dearest = self._rates(request)
        cap = min(self._settings.default_max_output_tokens, _published_cap(request.model))
        usage_bound = usage_bound_of(request, cap, self._settings.allowed_fields)
        _refuse_unpriced(dearest, usage_bound, request)
        last_call = last_call_of(call.raw_headers)
        payer = await self._payer(caller, product.bucket)
        reserve_micro = 0
        if last_call is not None:
            reserve = _cost_bound(dearest, last_call.usage_bound, request)
            reserve_micro = to_micro_bound(reserve, payer.credits_per_usd)
        while True:
            bound = _cost_bound(dearest, usage_bound, request)
            body = request.sent_body(cap)
            admission = Admission(
                record=new_record(call, caller, product, request, rates.version, bound),
                rates=rates,
                account=payer.account,
                credits_per_usd=payer.credits_per_usd,
                bound=bound,
                bound_micro=to_micro_bound(bound, payer.credits_per_usd),
                size=len(body),
                tools=usage_bound.tools,
                filtered=usage_bound.filtered,
                input_bound=_cost_bound(
                    dearest, msgspec.structs.replace(usage_bound, output_tokens=0), request
                ),
                dearest=dearest,
                asked=_asked(request),
                reserve_micro=reserve_micro,
            )
            result = await self._hold(product.bucket, caller, admission)
            if result.status == "held":
                metrics.child(metrics.HELD, product.name).inc(admission.bound_micro / MICRO)
                return Admitted(admission, body, result.run_percent)
            smaller = None
            if (
                result.status in _TOO_LITTLE
                and request.output_tokens is None
                and not usage_bound.uncapped
            ):
                smaller = _affordable_cap(
                    _without_reserve(result, reserve_micro),
                    payer.credits_per_usd,
                    dearest,
                    usage_bound,
                    request,
                )
            if smaller is None or smaller >= cap:
                if result.status == "short":
                    least = _cost_bound(dearest, _short(usage_bound), request)
                    self._report(result, caller, product.bucket, payer, least)
                if result.status == "limited":
                    self._remember_refused((caller.project_id, product.bucket))
                elif result.status == "rate":
                    self._remember_refused(caller.credential_sha256)
                raise self._refusal(result, product.bucket, admission)
            cap = smaller
            usage_bound = usage_bound_of(request, cap, self._settings.allowed_fields)

    async def refuse_early(self, product: Product, caller: Caller) -> None:
        """Raise `Refusal`, before the body is read, if the call is refused whatever it says.

        Only callers that were just refused are checked, so that all others need no second check.
        """
        if product.bucket is None:
            return
        keys_checked = (caller.project_id, product.bucket), caller.credential_sha256
        if not any(key in self._refused for key in keys_checked):
            return
        try:
            status, answer, wait_ms = await self._holds.precheck(
                caller.project_id, product.bucket, caller.credential_sha256
            )
        except (RedisUnavailable, RedisError):
            raise _store_unavailable() from None
        if status == "limited":
            bot_name, billing_url = self._settings.bot_name, self._settings.billing_url
            raise denials.denial(answer, product.bucket, bot_name, billing_url)
        if status == "rate":
            raise throttles.too_many_requests(wait_ms)
        for key in keys_checked:
            self._refused.pop(key, None)

    def _remember_refused(self, key: object) -> None:
        if len(self._refused) >= MAX_REFUSED:
            self._refused.pop(next(iter(self._refused)))
        self._refused[key] = None

    def _report(
        self, result: HoldResult, caller: Caller, bucket: str, payer: Payer, least: Decimal
    ) -> None:
        """Tell Django if what is left is too little even for a short answer and nothing is held."""
        needed = to_micro_bound(least, payer.credits_per_usd)
        if result.held_micro == 0 < result.remaining_micro < needed:
            self._resolver.report_insufficient(
                caller.organization_id, bucket, result.remaining_micro
            )

    def _rates(self, request: ModelRequest) -> tuple[Rates, Rates]:
        """Return the rates to expect, and the highest that may apply. Raises a 400 `Refusal`."""
        provider, model, tier = request.api.provider, request.model, request.service_tier or None
        try:
            standard = self._prices.rates(provider, model, None, request.fast)
        except UnknownPrice:
            raise bad_request(
                f"The price of the model {model[:100]} is not known here, so it cannot be called.",
                "model_without_price",
            ) from None
        try:
            if tier not in _TIERS[provider]:
                raise UnknownPrice
            if provider != "openai":
                return standard, standard
            expected = self._prices.rates(provider, model, tier)
        except UnknownPrice:
            raise bad_request(
                f"The price of {model[:100]} at the service tier {str(tier)[:50]} is not known "
                "here. An operator can set one for all tiers: GATEWAY_PRICE_OVERRIDES.",
                "model_without_price",
            ) from None
        dear = tier in _ANY_TIER or tier in ("priority", "fast")
        return expected, self._prices.dearest(provider, model) if dear else expected.dearer(
            standard
        )

    def _unmetered(
        self, product: Product, caller: Caller, request: ModelRequest, call: Call
    ) -> Admitted:
        """Admit a call that nobody pays for, without asking Redis."""
        rates: Rates | None
        try:
            rates = self._prices.rates(request.api.provider, request.model)
        except UnknownPrice:
            rates = None
        version = rates.version if rates else "unknown"
        record = new_record(call, caller, product, request, version, Decimal(0))
        body = request.sent_body(None)
        admission = Admission(
            record, rates, "", Decimal(0), Decimal(0), 0, len(body), asked=_asked(request)
        )
        return Admitted(admission, body)

    async def _payer(self, caller: Caller, bucket: str) -> Payer:
        try:
            return await self._resolver.payer(caller.project_id, bucket)
        except (RedisUnavailable, RedisError):
            raise _store_unavailable() from None

    async def _hold(self, bucket: str, caller: Caller, admission: Admission) -> HoldResult:
        wanted = Reservation(
            hold_id=admission.record.uuid,
            project_id=caller.project_id,
            resource=bucket,
            account=admission.account,
            bound_micro=admission.bound_micro,
            credential_sha256=caller.credential_sha256,
            task_run_id=caller.task_run_id,
            user=caller.user,
            record=admission.record.encode(),
            reserve_micro=admission.reserve_micro,
        )
        try:
            result = await self._holds.hold(wanted)
            if result.status in ("unknown", "closed"):
                await self._resolver.ask(caller.project_id)
                result = await self._holds.hold(wanted)
            if result.status == "unknown_user":
                await self._resolver.ask(caller.project_id, caller.distinct_id)
                result = await self._holds.hold(wanted)
        except (RedisUnavailable, RedisError):
            raise _store_unavailable() from None
        if result.status == "held":
            if result.age_ms > UNCONFIRMED_MS:
                metrics.OPEN_BECAUSE_UNKNOWN.inc()
            if result.answer_age_ms > REFRESH_MS:
                self._resolver.ask_in_background(caller.project_id)
        return result

    def _refusal(self, result: HoldResult, bucket: str, admission: Admission) -> Refusal:
        bot_name, billing_url = self._settings.bot_name, self._settings.billing_url
        match result.status:
            case "limited":
                return denials.denial(result.answer, bucket, bot_name, billing_url)
            case "project_cap" | "user_cap" if result.remaining_micro + result.held_micro <= 0:
                return denials.denial(
                    result.answer, bucket, bot_name, billing_url, f"{result.status}_reached"
                )
            case "short" | "project_cap" | "user_cap":
                return denials.too_little(
                    result.answer,
                    bucket,
                    bot_name,
                    billing_url,
                    needed_micro=admission.bound_micro,
                    remaining_micro=result.remaining_micro,
                    held_micro=result.held_micro,
                    cause=(
                        Reason.INSUFFICIENT_REMAINING
                        if result.status == "short"
                        else f"{result.status}_reached"
                    ),
                )
            case "run_cap":
                return denials.run_cap_reached(
                    result.answer,
                    bucket,
                    bot_name,
                    self._settings.run_cap_credits,
                    needed_micro=admission.bound_micro + admission.reserve_micro,
                    remaining_micro=result.remaining_micro,
                    held_micro=result.held_micro,
                )
            case "rate":
                return throttles.too_many_requests(result.remaining_micro)
            case "excessive":
                return bad_request("This call may cost more than can be reserved.", "unmeterable")
            case "rewound":
                return _store_unavailable()
        return unavailable(
            "Your team's credits cannot be checked at the moment. Please try again.",
            "quota_unknown",
        )


def _store_unavailable() -> Refusal:
    return unavailable(
        "Credits cannot be reserved at the moment. Please try again.", "store_unavailable"
    )


def _refuse_unpriced(rates: Rates, usage_bound: UsageBound, request: ModelRequest) -> None:
    """Raise a 400 `Refusal` if one of the provider's tools has no price here."""
    for tool in sorted(usage_bound.tools):
        if rates.of_use(tool) is None:
            raise bad_request(
                f"The price of the provider's tool {tool} is not known here for the model "
                f"{request.model[:100]}. An operator can set it: {OPERATOR_KEYS[tool]} in "
                "GATEWAY_PRICE_OVERRIDES.",
                "unmeterable",
            )


def _asked(request: ModelRequest) -> Usage:
    """Return the tier, speed and region that the caller asked for."""
    return Usage(
        service_tier=request.service_tier if request.api.provider == "openai" else None,
        fast=request.fast,
        inference_geo=request.inference_geo or None,
    )


def _cost_bound(rates: Rates, usage_bound: UsageBound, request: ModelRequest) -> Decimal:
    window = rates.context_window
    if b"context-1m" in request.betas.lower():
        window = max(window, 1_000_000)
    output = usage_bound.output_tokens
    if usage_bound.uncapped:
        output = max(output, min(window, _longest_output(request.model)))
    bound = rates.bound(
        usage_bound.input_tokens + usage_bound.whole_context * window,
        output,
        cached=usage_bound.cached or (request.api.provider == "openai" and rates.writes_cost_more),
        cached_for_long=usage_bound.cached_for_long and request.api.provider == "openai",
        searches=usage_bound.searches,
        tools=usage_bound.tools,
    )
    # If the caller names no region, the setting of the operator's workspace applies, which may be
    # a dear one.
    may_be_dear = request.api.provider == "anthropic" and request.inference_geo != "global"
    return bound * REGION_FACTOR if may_be_dear else bound


def _longest_output(model: str) -> int:
    """Return the most tokens that an OpenAI model writes if nothing caps its output.

    https://developers.openai.com/api/docs/models
    """
    return 272_000 if "-pro" in model else 128_000


def _short(usage_bound: UsageBound) -> UsageBound:
    """Return the usage bound for a short answer: a long one is the caller's choice."""
    return msgspec.structs.replace(
        usage_bound,
        output_tokens=min(usage_bound.output_tokens, SMALLEST_OUTPUT_CAP),
        uncapped=False,
    )


def _without_reserve(result: HoldResult, reserve_micro: int) -> HoldResult:
    """Return the refusal as if what the run keeps for its last call were used up."""
    if result.status != "run_cap":
        return result
    return msgspec.structs.replace(result, remaining_micro=result.remaining_micro - reserve_micro)


def _affordable_cap(
    result: HoldResult,
    credits_per_usd: Decimal,
    rates: Rates,
    usage_bound: UsageBound,
    request: ModelRequest,
) -> int | None:
    """Return the output cap that the remaining credits pay for, or None if it is too short."""
    left = Decimal(result.remaining_micro) / MICRO / credits_per_usd
    unanswered = _cost_bound(rates, msgspec.structs.replace(usage_bound, output_tokens=0), request)
    shortest = msgspec.structs.replace(usage_bound, output_tokens=request.choices)
    spare, each = left - unanswered, _cost_bound(rates, shortest, request) - unanswered
    if spare <= 0 or each == 0:
        return None
    cap = int((spare / each).to_integral_value(ROUND_FLOOR))
    return cap if cap >= SMALLEST_OUTPUT_CAP else None


# The highest output limits that older models accept. A higher one is an error there.
_SHORT_OUTPUTS = (
    ("gpt-3.5", 4_096),
    ("gpt-4o", 16_384),
    ("gpt-4-", 4_096),
    ("claude-3-haiku", 4_096),
    ("claude-3-opus", 4_096),
    ("claude-3-5", 8_192),
)


@lru_cache(maxsize=1_000)
def _published_cap(model: str) -> int:
    for prefix, cap in _SHORT_OUTPUTS:
        if model.startswith(prefix):
            return cap
    return 4_096 if model == "gpt-4" else 32_000
