"""The most that a call may cost."""

import json
from decimal import Decimal

import msgspec
import pytest

from gateway import apis
from gateway.admission import Gate, _affordable_cap, _cost_bound
from gateway.body import requests
from gateway.body.usage_bound import UsageBound, usage_bound_of
from gateway.errors import Refusal
from gateway.money.holds import HoldResult
from gateway.money.prices import Prices
from gateway.products import PRODUCTS
from gateway.resolver.credentials import KnownCredential
from gateway.resolver.tollgate_api import TokenAnswer

PRICES = Prices({})


def read(model: str, **more) -> requests.ModelRequest:
    body = {"model": model, "max_completion_tokens": 16, "messages": [], **more}
    return requests.read(apis.CHAT_COMPLETIONS, json.dumps(body).encode())


def dearest(**more):
    gate = Gate(None, PRICES, None, None)  # type: ignore[arg-type]
    return gate._rates(read("gpt-5", **more))[1]


def test_a_call_without_a_tier_is_held_at_the_dearest_price() -> None:
    assert dearest() == dearest(service_tier="auto") == PRICES.rates("openai", "gpt-5", "priority")
    assert dearest(service_tier="default") == PRICES.rates("openai", "gpt-5")


def test_a_tier_without_a_known_price_is_refused() -> None:
    with pytest.raises(Refusal, match="price"):
        dearest(service_tier="ultrafast")


def test_cache_writes_that_openai_makes_unasked_are_held() -> None:
    request, rates = read("gpt-5.6-sol"), PRICES.rates("openai", "gpt-5.6-sol")
    usage_bound = usage_bound_of(request, 9)
    assert not usage_bound.cached
    written = rates.bound(
        usage_bound.input_tokens, usage_bound.output_tokens, cached=True, searches=0
    )
    assert _cost_bound(rates, usage_bound, request) == written


def test_an_unknown_region_is_held_at_the_dearest_price() -> None:
    def bound(**more) -> Decimal:
        body = {"model": "claude-sonnet-4-6", "max_tokens": 16, "messages": [], **more}
        request = requests.read(apis.MESSAGES, json.dumps(body).encode())
        rates = PRICES.rates("anthropic", "claude-sonnet-4-6")
        return _cost_bound(rates, UsageBound(1000, 10), request)

    elsewhere = bound(inference_geo="global")
    assert bound() == bound(inference_geo=None) == bound(inference_geo="us")
    assert bound() == elsewhere * Decimal("1.1")


@pytest.mark.parametrize("more", [{}, {"inference_geo": "global"}, {"n": 2}])
@pytest.mark.parametrize("searches", [0, 3])
def test_the_affordable_output_cap_uses_what_is_left_and_no_more(more, searches) -> None:
    body = {"model": "claude-sonnet-4-6", "messages": [], **more}
    request = requests.read(apis.MESSAGES, json.dumps(body).encode())
    rates, left = PRICES.rates("anthropic", "claude-sonnet-4-6"), Decimal("0.05")
    usage_bound = UsageBound(1000, 0, searches=searches)
    short = HoldResult("short", int(left * 120 * 1_000_000), 0, 0, b"", 0)
    cap = _affordable_cap(short, Decimal(120), rates, usage_bound, request)
    assert cap is not None

    def costs(tokens: int) -> Decimal:
        answered = msgspec.structs.replace(usage_bound, output_tokens=tokens * request.choices)
        return _cost_bound(rates, answered, request)

    assert costs(cap) <= left < costs(cap + 1)


def test_a_number_in_many_spellings_is_remembered_once() -> None:
    answer = TokenAnswer(
        active=True, scope="llm_gateway:read", organization_id="o", project_id=7,
        token_kind="oauth_run", products=["slack_app"], task_run_id="r",
    )  # fmt: skip
    known = KnownCredential("digest", answer, 0.0)
    for spelled in (b"7", b"007", b" 7"):
        assert known.caller(PRODUCTS[0], spelled).project_id == 7
    assert len(known.callers) == 1
