"""No usage that a request allows costs more than the request's bound."""

import base64
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway import apis
from gateway.admission import Gate, _cost_bound, _refuse_unpriced
from gateway.body import requests
from gateway.body.usage_bound import usage_bound_of
from gateway.errors import Refusal
from gateway.metering.usage import Usage
from gateway.money import price_list
from gateway.money.charges import charge
from gateway.money.prices import Prices
from gateway.money.usage_events import CallRecord
from tests.examples import examples

OURS = {
    "input_mtok": "3", "output_mtok": "7", "cache_write_mtok": "4", "web_searches_kcount": "11",
    "code_executions_kcount": "30", "image_generations_kcount": "170", "output_image_mtok": "40",
    "input_image_mtok": "9",
}  # fmt: skip
PRICES = Prices({"ours": OURS}, openai_in_a_region=True)
GATE = Gate(None, PRICES, None, None)  # type: ignore[arg-type]
CAP = 1_000  # of output tokens, if the caller sets none
CLAUDE = ["claude-sonnet-4-5", "claude-haiku-5-5", "claude-opus-5-5", "claude-3-haiku", "ours"]
GPT = [
    "gpt-5.3-codex", "gpt-5.4", "gpt-6.1-terra", "gpt-6-luna", "gpt-4o", "gpt-4.1", "o3-mini",
    "ours", "gpt-5-chat-latest", "gpt-audio", "gpt-5.4-pro",
]  # fmt: skip
TIERS = ["default", "flex", "priority", "fast", "scale"]
# Short ones, and some that are much larger than the rest of a request.
TEXTS = st.sampled_from(["x" * 90_000, "é" * 60_000, "x" * 300_000]) | st.text(max_size=50)
PIXEL = base64.b64encode(b"x" * 300).decode()


@dataclass
class Limits:
    """The most that a call can use, according to the provider's documentation."""

    text: int  # bytes; each token has at least one
    output: int
    images: int = 0
    contexts: int = 0  # how many times the whole context may be read in addition
    kinds: set[str] = field(default_factory=lambda: {"input"})
    uses: dict[str, int] = field(default_factory=dict)
    of_all_uses: int | None = None
    tiers: list[str | None] = field(default_factory=lambda: [None])
    fast: list[bool | None] = field(default_factory=lambda: [None])
    regions: list[str | None] = field(default_factory=lambda: [None])


@st.composite
def messages(draw) -> tuple[apis.Api, dict[str, Any], Limits]:
    """Return a request of the Messages API, and what it may use."""
    model = draw(st.sampled_from(CLAUDE))
    text = draw(TEXTS)
    most = draw(st.integers(0, 9_000))
    limits = Limits(len(text.encode()), most)
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    body = {"model": model, "max_tokens": most, "messages": [{"role": "user", "content": content}]}
    if draw(st.booleans()):
        content[0]["cache_control"] = {
            "type": "ephemeral",
            "ttl": draw(st.sampled_from(["5m", "1h"])),
        }
        limits.kinds |= {"cache_read", "cache_write_5m", "cache_write_1h"}
    for _ in range(draw(st.integers(0, 2))):
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        content.append({"type": "image", "source": source})
        limits.images += 1
    tools = []
    for kind, used in (
        ("web_search_20250305", "web_searches"),
        ("web_search_20260209", "web_searches"),
        ("web_fetch_20250910", "web_fetches"),
    ):
        if draw(st.integers(0, 3)) == 0:
            uses = draw(st.integers(0, 30))
            tools.append({"type": kind, "name": kind[:10], "max_uses": uses})
            limits.uses[used] = limits.uses.get(used, 0) + uses
    if tools:
        body["tools"] = tools
    total = sum(limits.uses.values())
    limits.contexts = total + 1 if total else 0
    geo = draw(st.sampled_from(["none", None, "global", "us"]))
    if geo != "none":
        body["inference_geo"] = geo
    limits.regions = (
        ["global", None] if geo == "global" else [None, "us", "global", "not_available"]
    )
    if draw(st.integers(0, 4)) == 0:
        body["speed"] = "fast"
        limits.fast = [None, True, False]
    limits.tiers = [None, "standard", "priority", "batch"]
    return apis.MESSAGES, body, limits


@st.composite
def of_openai(draw) -> tuple[apis.Api, dict[str, Any], Limits]:
    """Return a request of another API, and what it may use."""
    api = draw(st.sampled_from([apis.CHAT_COMPLETIONS, apis.RESPONSES, apis.COMPACT]))
    model = draw(st.sampled_from(GPT))
    text = draw(TEXTS)
    limits = Limits(len(text.encode()), CAP, kinds={"input", "cache_read", "cache_write_5m"})
    part: dict[str, Any] = {"type": "text" if api.meter == "chat" else "input_text", "text": text}
    body: dict[str, Any] = {"model": model}
    body["messages" if api.meter == "chat" else "input"] = [{"role": "user", "content": [part]}]
    if draw(st.booleans()) and api.output_fields:
        limits.output = body[api.output_fields[0]] = draw(st.integers(1, 9_000))
    if api is apis.COMPACT:
        limits.output = 100_000
    if api.meter == "chat" and draw(st.booleans()):
        body["n"] = draw(st.integers(1, 5))
        limits.output *= body["n"]
    if api.meter == "chat" and draw(st.integers(0, 3)) == 0:
        body["prediction"] = {"type": "content", "content": text}
        limits.output += limits.text
        limits.text *= 2
    if draw(st.integers(0, 3)) == 0:
        body["prompt_cache_options"] = {"ttl": draw(st.sampled_from(["30m", "12h", None]))}
        if body["prompt_cache_options"]["ttl"] == "12h":
            limits.kinds.add("cache_write_12h")
    if api is apis.RESPONSES:
        tools = {
            kind: used
            for kind, used in (
                ("web_search", "web_searches"),
                ("web_search_preview", "web_searches"),
                ("file_search", "file_searches"),
                ("code_interpreter", "code_executions"),
                ("image_generation", "image_generations"),
            )
            if draw(st.integers(0, 3)) == 0
        }
        if tools:
            body["tools"] = [{"type": kind, "container": {"type": "auto"}} for kind in tools]
            limits.of_all_uses = body["max_tool_calls"] = draw(st.integers(0, 100))
            limits.uses = dict.fromkeys(tools.values(), body["max_tool_calls"])
            limits.contexts = body["max_tool_calls"] + 1 if body["max_tool_calls"] else 0
    tier = draw(st.sampled_from(["none", None, "auto", *TIERS]))
    if tier != "none":
        body["service_tier"] = tier
    if tier in ("none", None, "auto"):
        limits.tiers = [None, *TIERS]
    else:
        limits.tiers = [None, "default", tier]
    return api, body, limits


@settings(max_examples=examples(100))
@given(st.one_of(messages(), of_openai()), st.data())
def test_no_usage_within_the_limits_costs_more_than_the_bound(asked, data) -> None:
    api, body, limits = asked
    try:
        request = requests.read(api, json.dumps(body).encode())
        expected, dearest = GATE._rates(request)
        usage_bound = usage_bound_of(request, CAP)
        _refuse_unpriced(dearest, usage_bound, request)
    except Refusal:
        assume(False)
    bound = _cost_bound(dearest, usage_bound, request)
    record = record_of(request)
    window = dearest.context_window
    for usage in (data.draw(usages(limits, window)), *greatest_usages(limits, window)):
        cost, _ = charge(PRICES, record, expected, usage, usage_bound.tools)
        assert 0 <= cost <= bound, (usage, cost, bound)


def greatest_usages(limits: Limits, window: int) -> Iterator[Usage]:
    """Yield the largest usage of each kind that a call may have, at every tier and region."""
    most = limits.text + limits.images * 4_000 + limits.contexts * window
    of_all_uses = limits.of_all_uses
    uses = [limits.uses] if of_all_uses is None else [{name: of_all_uses} for name in limits.uses]
    for kind, used, tier, fast, region in itertools.product(
        limits.kinds, uses or [{}], limits.tiers, limits.fast, limits.regions
    ):
        yield Usage(
            **{kind: most},
            **used,
            output=limits.output,
            image_input=most if kind == "input" else 0,
            image_output=limits.output,
            service_tier=tier,
            fast=fast,
            inference_geo=region,
        )


@st.composite
def usages(draw, limits: Limits, window: int) -> Usage:
    """Return any usage that a provider may report for such a call."""
    left = limits.text + limits.images * 4_000 + limits.contexts * window
    counts = {}
    for kind in draw(st.permutations(sorted(limits.kinds))):
        counts[kind] = draw(st.one_of(st.just(left), st.integers(0, left)))
        left -= counts[kind]
    output = draw(st.one_of(st.just(limits.output), st.integers(0, limits.output)))
    free, uses = limits.of_all_uses, {}
    for used, allowed in limits.uses.items():
        most = allowed if free is None else min(allowed, free)
        uses[used] = draw(st.one_of(st.just(most), st.integers(0, most)))
        free = None if free is None else free - uses[used]
    return Usage(
        **counts,
        **uses,
        output=output,
        image_input=draw(st.integers(0, counts.get("input", 0))),
        image_output=draw(st.integers(0, output)),
        service_tier=draw(st.sampled_from(limits.tiers)),
        fast=draw(st.sampled_from(limits.fast)),
        inference_geo=draw(st.sampled_from(limits.regions)),
    )


def record_of(request: requests.ModelRequest) -> CallRecord:
    return CallRecord(
        uuid="u", timestamp="t", distinct_id="d", product="slack_app", billable=True,
        model=request.model, provider=request.api.provider, stream=False, trace_id="t",
        organization_id="o", project_id=1, task_run_id=None, price_version="v", bound_usd="0",
    )  # fmt: skip


def test_every_published_model_is_bounded_at_every_tier() -> None:
    """The dearest rates are never below those of any tier, whatever the length of the context."""
    for provider in ("anthropic", "openai"):
        for name in price_list._names(provider):
            try:
                dearest = PRICES.dearest(provider, name)
            except LookupError:
                continue
            info = price_list.find(provider, name)
            for tier in {None, *price_list.tiers(info)}:
                rates = PRICES.rates(provider, name, tier)
                for size in (1, 99_999, 100_001, 200_001, 272_001, 1_000_000):
                    for kind in ("input", "cache_read", "cache_write_5m", "cache_write_12h"):
                        usage = Usage(**{kind: size}, output=size)
                        bound = dearest.bound(
                            size, size, cached=True, searches=0, cached_for_long=True
                        )
                        assert Decimal(0) <= rates.cost(usage) <= bound, (name, tier, kind)
