"""What is booked if an answer ends in an unusual way. The settler is tested directly."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from gateway.admission import Admission
from gateway.booking import Ending, Settler
from gateway.metering import Meter, meter_for
from gateway.metering.usage import Usage
from gateway.money.prices import Prices
from gateway.money.usage_events import CallRecord, Outcome, correction, event
from tests.gateway.fake_provider import sse
from tests.gateway.money.test_components import RECORD, SEARCHED

BOUND, INPUT_BOUND, SIZE = Decimal(1), Decimal("0.5"), 1_000
PRICES = Prices({})
BROKEN = Ending(0.0, status=200, sent=True, failed=True)
WHOLE = Ending(0.0, status=200, sent=True)


def outcome(
    model: str,
    meter: Meter,
    ending: Ending = BROKEN,
    *,
    tools: tuple[str, ...] = (),
    asked: Usage | None = None,
) -> Outcome:
    """Return how a billable call of a model is booked."""
    provider = "anthropic" if model.startswith("claude") else "openai"
    reported = {**RECORD, "model": model, "provider": provider}
    admission = Admission(
        record=msgspec.convert(reported, CallRecord),
        rates=PRICES.rates(provider, model),
        account="account",
        credits_per_usd=Decimal(120),
        bound=BOUND,
        bound_micro=120_000_000,
        size=SIZE,
        tools=frozenset(tools),
        input_bound=INPUT_BOUND,
        dearest=PRICES.dearest(provider, model),
        asked=asked or Usage(),
    )
    return Settler(None, PRICES).outcome(admission, meter, ending)  # type: ignore[arg-type]


def stream(kind: str, *events: Any, ended: bool = False, hide_usage: bool = False) -> Meter:
    """Return a meter that has read these events."""
    meter = meter_for(kind, stream=True, hide_usage=hide_usage)
    for each in sse(*((None, reported) for reported in events)):
        meter.feed(each)
    if ended:
        meter.end()
    return meter


def created(model: str, **more: Any) -> dict[str, Any]:
    return {"type": "response.created", "response": {"model": model, "usage": None, **more}}


SEARCH_BEGUN = {"type": "server_tool_use", "name": "web_search", "input": {}}
TEXT = {"type": "response.output_text.delta", "output_index": 0, "delta": "x" * 4_000}


def test_a_broken_stream_of_a_dearer_model_is_charged_at_its_price() -> None:
    """The charge may exceed the bound, which is that of the model that was asked for."""
    asked = outcome("gpt-5-mini", stream("responses", created("gpt-5-mini"), TEXT))
    served = outcome("gpt-5-mini", stream("responses", created("gpt-4o"), TEXT))
    assert asked.cost == served.cost  # mostly the bound of the input
    long = {**TEXT, "delta": "x" * 4_000_000}
    asked = outcome("gpt-5-mini", stream("responses", created("gpt-5-mini"), long))
    served = outcome("gpt-5-mini", stream("responses", created("gpt-4o"), long))
    assert asked.cost == BOUND
    assert served.cost > 10


def test_the_reported_tier_prices_the_text_of_a_broken_stream() -> None:
    reported = created("gpt-5-mini", service_tier="priority")
    cost = outcome("gpt-5-mini", stream("responses", reported, TEXT)).cost
    priority = PRICES.rates("openai", "gpt-5-mini", "priority")
    assert cost == INPUT_BOUND + priority.cost(Usage(output=1_000))


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "document"])
def test_searches_before_an_error_are_not_free(streamed: bool) -> None:
    failed = {"status": "failed", "error": {"code": "server_error"}, "usage": None}
    if streamed:
        items = [
            {"type": "response.output_item.done", "output_index": index, "item": SEARCHED}
            for index in range(3)
        ]
        last = {"type": "response.failed", "response": failed}
        meter = stream("responses", created("gpt-5-mini"), *items, last, ended=True)
    else:
        meter = meter_for("responses", stream=False, hide_usage=False)
        meter.feed(json.dumps({"model": "gpt-5-mini", "output": [SEARCHED] * 3, **failed}).encode())
        meter.end()
    found = outcome("gpt-5-mini", meter, WHOLE, tools=("web_search",))
    assert (found.estimated, found.usage.web_searches) == (True, 3)
    assert found.cost >= INPUT_BOUND


@pytest.mark.parametrize("piece", [1 << 30, 60_000, 1])
@pytest.mark.parametrize("size", [8_000, 100_000])
def test_the_text_of_an_unfinished_event_counts(size: int, piece: int) -> None:
    text = b"x" * size
    cut = {
        "chat": b'data: {"choices":[{"index":0,"delta":{"content":"' + text,
        "messages": b'data: {"type":"content_block_delta","delta":{"text":"' + text,
        "responses": b'data: {"type":"response.output_text.delta","delta":"' + text,
    }
    for kind, data in cut.items():
        meter = meter_for(kind, stream=True, hide_usage=False)
        for at in range(0, len(data), piece):
            meter.feed(data[at : at + piece])
        assert meter.unreported_output == size / 4, kind


def test_the_echo_of_a_request_in_an_unfinished_event_does_not_count() -> None:
    meter = meter_for("responses", stream=True, hide_usage=False)
    echo = b'data: {"type":"response.created","response":{"instructions":"' + b"x" * 48_000
    meter.feed(echo)
    assert meter.unreported_output == 0


def chunk(**fields: Any) -> dict[str, Any]:
    return {"choices": [], **fields}


CHAT_USAGE = {"prompt_tokens": 1_000, "completion_tokens": 500}


def test_a_tier_or_model_reported_after_the_usage_counts() -> None:
    after = chunk(service_tier="priority", model="gpt-5-mini-2025-08-07")
    meter = stream("chat", chunk(usage=CHAT_USAGE), after, "[DONE]")
    usage = meter.usage()
    assert usage is not None
    assert (usage.service_tier, usage.model) == ("priority", "gpt-5-mini-2025-08-07")
    rates = PRICES.rates("openai", "gpt-5-mini", "priority")
    assert outcome("gpt-5-mini", meter, WHOLE).cost == rates.cost(Usage(1_000, output=500))


def test_placeholder_zeros_do_not_make_a_broken_stream_free() -> None:
    nothing = {"prompt_tokens": 0, "completion_tokens": 0}
    said = {"index": 0, "delta": {"content": "word"}, "finish_reason": None}
    events = [chunk(choices=[said], usage=nothing)] * 100
    meter = stream("chat", *events)
    assert meter.unreported_output == 100
    rates = PRICES.dearest("openai", "gpt-5-mini")
    cost = outcome("gpt-5-mini", meter).cost
    assert cost == INPUT_BOUND + rates.cost(Usage(output=100))
    whole = stream("chat", *events, chunk(usage=CHAT_USAGE), "[DONE]")
    assert not outcome("gpt-5-mini", whole, WHOLE).estimated


def test_zeros_of_an_unfinished_response_do_not_make_it_free() -> None:
    nothing = {"input_tokens": 0, "output_tokens": 0}
    under_way = {"type": "response.in_progress", "response": {"usage": nothing}}
    meter = stream("responses", created("gpt-5-mini"), TEXT, under_way)
    assert meter.unreported_output == 1_000
    rates = PRICES.dearest("openai", "gpt-5-mini")
    assert outcome("gpt-5-mini", meter).cost == INPUT_BOUND + rates.cost(Usage(output=1_000))


@pytest.mark.parametrize(
    ("asked", "reported", "factor"),
    [(None, None, "1.1"), ("us", None, "1.1"), ("global", None, "1"), ("us", "global", "1")],
)
def test_a_stream_that_breaks_before_its_region_is_reported_has_the_dearest_price(
    asked: str | None, reported: str | None, factor: str
) -> None:
    usage = {"input_tokens": 1_000, "output_tokens": 1, "inference_geo": reported}
    text = {"type": "content_block_delta", "delta": {"text": "x" * 4_000}}
    start = {"type": "message_start", "message": {"usage": usage}}
    region = Usage(inference_geo=asked)
    found = outcome("claude-sonnet-4-5", stream("messages", start, text), asked=region)
    usual = PRICES.rates("anthropic", "claude-sonnet-4-5").cost(Usage(1_000, output=1_001))
    assert found.cost == usual * Decimal(factor)
    searched = {"type": "content_block_start", "content_block": SEARCH_BEGUN}
    with_a_search = stream("messages", start, searched, text)
    tools = ("web_search",)
    cost = outcome("claude-sonnet-4-5", with_a_search, tools=tools, asked=region).cost
    assert cost == found.cost + Decimal("0.01")  # a search costs the same everywhere


def test_an_error_with_usage_is_shown_even_if_usage_is_hidden() -> None:
    error = chunk(error={"message": "overloaded"}, usage=CHAT_USAGE)
    data = b"".join(sse((None, error)))
    for size in (len(data), 1):
        meter = meter_for("chat", stream=True, hide_usage=True)
        shown = b"".join(meter.feed(data[at : at + size]) for at in range(0, len(data), size))
        assert shown + meter.end() == data
    usage = b"".join(sse((None, chunk(usage=CHAT_USAGE, error=None))))
    assert meter_for("chat", stream=True, hide_usage=True).feed(usage) == b""


@pytest.mark.parametrize("written", ["1000.0", "1e3", "1E+3", "0.1e4"])
@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "document"])
def test_usage_is_read_in_every_json_notation(written: str, streamed: bool) -> None:
    usages = {
        "chat": '{"prompt_tokens":%s,"completion_tokens":500.0}',
        "messages": '{"input_tokens":%s,"output_tokens":5e2}',
        "responses": '{"input_tokens":%s,"output_tokens":500}',
    }
    for kind, usage in usages.items():
        reported = usage % written
        if streamed:
            data = {
                "chat": f'{{"choices":[],"usage":{reported}}}\n\ndata: [DONE]',
                "messages": '{"type":"message_delta","delta":{"stop_reason":"end_turn"},'
                f'"usage":{reported}}}',
                "responses": f'{{"type":"response.completed","response":{{"usage":{reported}}}}}',
            }[kind]
            data = f"data: {data}\n\n"
        else:
            data = f'{{"usage":{reported}}}'
        meter = meter_for(kind, stream=streamed, hide_usage=False)
        meter.feed(data.encode())
        meter.end()
        found = meter.usage()
        assert found is not None
        assert (meter.complete, found.input, found.output) == (True, 1_000, 500), kind


def test_a_response_with_a_final_status_has_ended_whatever_its_event_is_called() -> None:
    usage = {"input_tokens": 1_000, "output_tokens": 500}
    done = {"type": "response.done", "response": {"status": "completed", "usage": usage}}
    meter = stream("responses", created("gpt-5-mini"), TEXT, done)
    assert (meter.finished, meter.complete) == (True, True)
    queued = {"type": "response.queued", "response": {"status": "queued", "usage": usage}}
    assert not stream("responses", queued).finished


def test_an_error_stays_an_error_even_if_its_whole_usage_was_reported() -> None:
    error = chunk(error={"message": "overloaded"}, usage=CHAT_USAGE)
    found = outcome("gpt-5-mini", stream("chat", error, "[DONE]", ended=True), WHOLE)
    assert (found.is_error, found.usage.output) == (True, 500)


def test_a_single_token_of_input_is_not_a_placeholder() -> None:
    usage = {"input_tokens": 1, "output_tokens": 1}
    meter = stream("messages", {"type": "message_start", "message": {"usage": usage}})
    assert outcome("claude-sonnet-4-5", meter).usage.input == 1


def test_an_event_after_the_usage_does_not_reset_it() -> None:
    ended = {"delta": {"stop_reason": "end_turn"}}
    meter = stream(
        "messages",
        {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "message_delta", **ended, "usage": {"output_tokens": 5}},
        {"type": "message_delta", **ended, "usage": None},
        {"type": "message_stop"},
    )
    assert meter.complete
    only_at_the_start = stream(
        "messages",
        {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"text": "Hello you there"}},
        {"type": "message_delta", **ended},
        {"type": "message_stop"},
    )
    found = outcome("claude-sonnet-4-5", only_at_the_start, WHOLE)
    assert (found.estimated, found.usage.input, found.usage.output) == (True, 9, 5)


def test_the_event_counts_every_cache_write() -> None:
    usage = Usage(10, cache_write_5m=1, cache_write_1h=2, cache_write_12h=4)
    reported = Outcome(Decimal(0), usage, 200, False, False, 0.0, "v")
    record = msgspec.convert(RECORD, CallRecord)
    data = json.loads(event(record, reported, account="", group="", debited_micro=0))
    assert data["properties"]["$ai_cache_creation_input_tokens"] == 7


@pytest.mark.parametrize("estimated", [True, False])
def test_a_correction_has_all_properties_of_the_event(estimated: bool) -> None:
    reported = Outcome(Decimal(1), Usage(10, web_searches=3), 200, False, estimated, 0.0, "v")
    record = msgspec.convert(RECORD, CallRecord)
    _, debit, data = correction(
        record, reported, account="a", group="g", debited_micro=1_000, bound_micro=3_000
    )
    properties = json.loads(data)["properties"]
    assert (debit, properties["$ai_web_search_count"]) == (-2_000, 3)
    assert properties["$ai_usage_estimated"] is estimated
