"""Every part of a call has a price, is refused before the call, or is counted and logged."""

import json
import re
from decimal import Decimal

import msgspec
import pytest

from gateway.metering.usage import Usage
from gateway.money import prices
from gateway.money.charges import charge
from gateway.money.prices import Prices, UnknownPrice
from gateway.money.usage_events import CallRecord
from gateway.telemetry import metrics
from tests.conftest import wait_until
from tests.gateway.bodies import CHAT, RESPONSES, chat_body
from tests.gateway.conftest import DENIED, ROOT, World, messages_body
from tests.gateway.fake_provider import (
    Script,
    completion,
    json_script,
    message,
    messages_usage,
    response,
)

SEARCHED = {"type": "web_search_call", "action": {"type": "search", "query": "x"}}
FILE_SEARCHED = {"type": "file_search_call", "queries": ["x"]}
PLENTY = 1_000_000
RECORD = {
    "uuid": "u", "timestamp": "t", "distinct_id": "d", "product": "slack_app", "billable": True,
    "model": "claude-opus-4-6", "provider": "anthropic", "stream": False, "trace_id": "t",
    "organization_id": "o", "project_id": 1, "task_run_id": None, "price_version": "v",
    "bound_usd": "0",
}  # fmt: skip


def answer(model: str, items: list[dict], *, tokens: int = 1_000, written: int = 100) -> Script:
    """Return an answer of the Responses API with these input and output tokens."""
    usage = {
        "input_tokens": tokens, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": written, "total_tokens": tokens + written,
    }  # fmt: skip
    document = {**response(), "model": model, "usage": usage}
    return json_script({**document, "output": [*items, *document["output"]]})


def ask(world: World, model: str, tool: str, **more):
    """Make a call with an OpenAI tool; return the project and the answer."""
    project = world.tollgate.project(credits=PLENTY)
    body = {"model": model, "input": "Hi", "tools": [{"type": tool}], "max_tool_calls": 20, **more}
    return project, world.post(world.tollgate.token(project), RESPONSES, body)


def dollars(world: World, project) -> Decimal:
    [event] = world.booked(project)
    return Decimal(event["properties"]["$ai_total_cost_usd"])


@pytest.mark.parametrize(
    ("model", "tool", "item", "cost"),
    [
        ("gpt-5.3-codex", "web_search", SEARCHED, "0.20315"),
        ("gpt-5.3-codex", "web_search_2025_08_26", SEARCHED, "0.20315"),
        ("gpt-5.1-codex-mini", "web_search", SEARCHED, "0.20045"),
        ("o3-mini", "file_search", FILE_SEARCHED, "0.05154"),
        ("gpt-4o", "web_search", SEARCHED, "0.2035"),
        # the older tool costs more with models that do not reason
        ("gpt-4o", "web_search_preview", SEARCHED, "0.5035"),
        ("gpt-5-mini", "web_search_preview", SEARCHED, "0.20045"),
        ("gpt-5-chat-latest", "web_search_preview", SEARCHED, "0.50225"),
    ],
)
def test_twenty_searches_are_charged_on_every_model(world: World, model, tool, item, cost) -> None:
    world.provider.script = lambda _: answer(model, [item] * 20)
    project, answered = ask(world, model, tool)
    assert answered.status_code == 200, answered.text
    assert dollars(world, project) == Decimal(cost)


def test_searches_are_held_before_the_call(world: World) -> None:
    """A hundred searches cost a dollar, whatever the price list says about the model."""
    published = Prices({})
    for model in ("gpt-5.3-codex", "gpt-4o", "o3-mini"):
        rates = published.rates("openai", model)
        without = rates.bound(1_000, 100, cached=False, searches=0)
        for tool, least in (("web_search", 1), ("file_search", Decimal("0.25"))):
            held = rates.bound(1_000, 100, cached=False, searches=100, tools=[tool])
            assert held - without == least
    project = world.tollgate.project(credits=100)
    body = {"model": "gpt-5.3-codex", "input": "Hi", "max_tool_calls": 100,
            "tools": [{"type": "web_search"}]}  # fmt: skip
    before = len(world.provider.requests)
    refused = world.post(world.tollgate.token(project), RESPONSES, body)
    assert (refused.status_code, len(world.provider.requests)) == (DENIED, before)
    assert float(refused.json()["error"]["needed"]) >= 120


@pytest.mark.parametrize(
    ("tool", "key"),
    [
        ({"type": "code_interpreter", "container": {"type": "auto"}}, "code_executions_kcount"),
        ({"type": "image_generation"}, "image_generations_kcount"),
    ],
)
def test_the_refusal_of_a_tool_without_a_price_names_the_setting(
    world: World, tool: dict, key: str
) -> None:
    before = len(world.provider.requests)
    _, refused = ask(world, "gpt-5-mini", "", tools=[tool])
    error = refused.json()["error"]
    assert (refused.status_code, error["reason"]) == (400, "unmeterable")
    assert key in error["message"]
    assert "GATEWAY_PRICE_OVERRIDES" in error["message"]
    assert len(world.provider.requests) == before


def test_searches_are_charged_but_opened_pages_are_not() -> None:
    rates = Prices({}).rates("openai", "gpt-5-mini")
    assert rates.cost(Usage(1_000, output=100, web_searches=1)) == Decimal("0.01045")


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "gpt-5.3-codex"), ("openai", "o3-mini"), ("anthropic", "claude-3-haiku")],
)
def test_an_operators_price_without_searches_uses_the_published_ones(
    provider: str, model: str
) -> None:
    price = {"input_mtok": "1", "output_mtok": "2"}
    for rates in (Prices({model: price}).rates(provider, model), Prices({}).rates(provider, model)):
        assert rates.web_search == Decimal("0.01")
        assert rates.file_search == (Decimal("0.0025") if provider == "openai" else None)
        assert rates.code_execution is None
    ours = Prices({model: {**price, "web_searches_kcount": 3, "code_executions_kcount": "0.5"}})
    assert ours.rates(provider, model).web_search == Decimal("0.003")
    assert ours.rates(provider, model).code_execution == Decimal("0.0005")


@pytest.mark.parametrize("value", [-1, "NaN", "Infinity", "free", None, True, [1]])
def test_an_invalid_operators_price_is_refused_at_startup(value) -> None:
    with pytest.raises(ValueError, match="GATEWAY_PRICE_OVERRIDES"):
        Prices({"ours": {"input_mtok": "1", "output_mtok": "2", "web_searches_kcount": value}})


def test_audio_and_images_have_their_published_prices() -> None:
    rates = Prices({}).rates("openai", "gpt-audio")
    text = rates.cost(Usage(1_000, output=100))
    # $32 and $64 instead of $2.50 and $10 a million
    assert rates.cost(Usage(1_000, output=100, audio_input=400)) - text == Decimal("0.0118")
    assert rates.cost(Usage(1_000, output=100, audio_output=50)) - text == Decimal("0.0027")
    realtime = Prices({}).rates("openai", "gpt-realtime")
    assert realtime.cost(Usage(1_000, image_input=1_000)) == Decimal("0.005")
    # images are priced as text if nothing else is published, as providers say
    assert Prices({}).rates("openai", "gpt-5").unpriced(Usage(1_000, image_input=1_000)) == []


def test_caches_of_every_lifetime_have_a_price() -> None:
    terra = Prices({}).rates("openai", "gpt-6.1-terra")
    assert terra.cost(Usage(cache_write_5m=1_000_00)) == Decimal("0.125")  # thirty minutes
    assert terra.cost(Usage(cache_write_12h=1_000_00)) == Decimal("0.25")  # twelve hours
    sonnet = Prices({}).rates("anthropic", "claude-sonnet-4-6")
    assert sonnet.cost(Usage(10, cache_write_5m=5_000)) == Decimal("0.01878")
    assert sonnet.cost(Usage(10, cache_write_1h=5_000)) == Decimal("0.03003")


@pytest.mark.parametrize("tier", ["priority", "fast", "flex", "ultrafast", "batch"])
def test_a_service_tier_without_a_published_price_has_none(tier: str) -> None:
    with pytest.raises(UnknownPrice):
        Prices({}).rates("openai", "gpt-5.1-codex-mini", tier)
    for standard in (None, "auto", "default", "scale"):
        assert Prices({}).rates("openai", "gpt-5.1-codex-mini", standard)


def test_a_regional_endpoint_costs_a_tenth_more_for_newer_models() -> None:
    there, here = Prices({}, openai_in_a_region=True), Prices({})
    usage = Usage(1_000, 100, output=10, web_searches=2)
    for model, factor in (("gpt-6-sol", "1.1"), ("gpt-5.4", "1.1"), ("gpt-5.3-codex", "1"),
                          ("gpt-5-mini", "1"), ("o3", "1"), ("gpt-4.1", "1")):  # fmt: skip
        searches = 2 * here.rates("openai", model).web_search
        tokens = here.rates("openai", model).cost(usage) - searches
        expected = tokens * Decimal(factor) + searches
        assert there.rates("openai", model).cost(usage) == expected
    ours = {"gpt-6-sol": {"input_mtok": "1", "output_mtok": "2"}}
    assert (
        Prices(ours, openai_in_a_region=True).rates("openai", "gpt-6-sol").cost(Usage(1_000_000))
        == 1
    )


def test_unexpected_usage_without_a_price_is_reported(world: World) -> None:
    metric = "tollgate_gateway_unpriced_total"
    before = world.metric(metric)
    document = {**completion(), "service_tier": "a-new-one"}
    world.provider.script = lambda _: json_script(document)
    project = world.tollgate.project(credits=100)
    world.post(world.tollgate.token(project), CHAT, chat_body(service_tier="default"))
    # booked at the dearest known tier: 60 × $4.25 + 40 × $2.125 + 20 × $17, per million
    assert dollars(world, project) == Decimal("0.00068")
    wait_until(lambda: world.metric(metric) == before + 1, what="the metric")
    assert "a part of a call has no price" in world.log.read_text()


def test_code_that_a_provider_ran_is_reported_unless_it_is_free_with_a_search() -> None:
    published, usage = Prices({}), Usage(1_000, code_executions=3)
    rates = published.rates("anthropic", "claude-opus-4-6")
    assert rates.unpriced(usage) == ["code_executions"]
    counter = metrics.UNPRICED.labels("code_executions")._value
    before = counter.get()
    record = msgspec.convert(RECORD, CallRecord)
    for free_code, times in ((True, 0), (False, 1)):
        cost, _ = charge(published, record, rates, usage, frozenset(), free_code=free_code)
        assert (cost, counter.get() - before) == (rates.cost(Usage(1_000)), times)
    ours = {"input_mtok": "5", "output_mtok": "25", "code_executions_kcount": "40"}
    own = Prices({"claude-opus-4-6": ours})
    rates = own.rates("anthropic", "claude-opus-4-6")
    cost, version = charge(own, record, rates, usage, frozenset())
    assert (cost, version) == (Decimal("0.125"), "operator")


def test_a_cache_may_be_warmed_without_an_answer(world: World) -> None:
    usage = messages_usage(
        input_tokens=10, output_tokens=0, cache_creation_input_tokens=5_000,
        cache_creation={"ephemeral_5m_input_tokens": 5_000, "ephemeral_1h_input_tokens": 0},
    )  # fmt: skip
    document = {**message(usage), "model": "claude-sonnet-4-6", "content": []}
    world.provider.script = lambda _: json_script(document)
    project = world.tollgate.project(credits=100)
    system = [{"type": "text", "text": "x" * 20_000, "cache_control": {"type": "ephemeral"}}]
    body = messages_body(model="claude-sonnet-4-6", max_tokens=0, system=system)
    answered = world.post(world.tollgate.token(project), body=body)
    assert answered.status_code == 200, answered.text
    assert json.loads(world.provider.requests[-1].body)["max_tokens"] == 0
    assert dollars(world, project) == Decimal("0.01878")


def test_every_price_that_an_operator_may_set_is_documented() -> None:
    for page in (".env.example", "docs/gateway.md"):
        text = (ROOT / page).read_text()
        for key in prices._PRICED | {"context_window"}:
            assert key in text, (page, key)
    [example] = re.findall(r'`(\{"my-model".*\})`', (ROOT / "docs/gateway.md").read_text())
    assert Prices(json.loads(example)).rates("openai", "my-model").web_search == Decimal("0.01")
