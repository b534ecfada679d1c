"""Each model name has its own price or none, and an answer from another model is priced."""

import json
import typing
from decimal import Decimal
from pkgutil import resolve_name

import pytest
from genai_prices import data_snapshot

from gateway.money import price_list
from gateway.money.prices import Prices, UnknownPrice
from tests.conftest import wait_until
from tests.gateway.bodies import CHAT, RESPONSES, chat_body
from tests.gateway.conftest import World, messages_body
from tests.gateway.fake_provider import (
    SSE_HEADERS,
    Script,
    completion,
    json_script,
    message,
    messages_stream,
    response,
)

PROVIDERS = {
    each.id: each
    for each in data_snapshot.get_snapshot().providers
    if each.id in ("anthropic", "openai")
}
ODD = [
    "{},claude-opus-4-5", "{} ", " {}", "{}\n", "{}-thinking", "{}:free", "{}:beta", "{}-v2",
    "{}-2025", "{}-20259901", "{}-2025-1-1", "{}-20250929-20250929", "{}@latest", "{}/", "{}\x00",
    "anthropic/{}", "openai/{}", "us.{}", "models/{}", "ft:{}", "ft:{}:acme::x", "{}-1m", "{}[1m]",
    "{}-fast", "{}-eu", "{}-2025-08-07-extra", "{}٢",
]  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_listed_name_has_its_own_price(provider: str) -> None:
    models = PROVIDERS[provider].models
    assert len(models) > 25
    for info in models:
        assert price_list.find(provider, info.id) is info
    for name, info in price_list._names(provider).items():
        # The package accepts the name of a fine-tuned model only with a date.
        found = PROVIDERS[provider].find_model(name)
        assert found in (info, None), name


@pytest.mark.parametrize(
    ("provider", "names"),
    [
        ("anthropic", "anthropic.types.model:Model"),
        ("openai", "openai.types.shared.responses_model:ResponsesModel"),
    ],
)
def test_names_of_the_sdk_that_have_a_price_keep_it(provider: str, names: str) -> None:
    seen = 0
    for name in literals(resolve_name(names)):
        known = PROVIDERS[provider].find_model(name)
        if known is not None:
            assert price_list.find(provider, name) is known, name
            seen += 1
    assert seen > 10


def literals(annotation: object) -> typing.Iterator[str]:
    if typing.get_origin(annotation) is typing.Literal:
        yield from typing.get_args(annotation)
    else:
        for part in typing.get_args(annotation):
            yield from literals(part)


@pytest.mark.parametrize(
    ("provider", "model", "of"),
    [
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("anthropic", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("anthropic", "claude-sonnet-4-20250514", "claude-sonnet-4-0"),
        ("anthropic", "claude-3-5-sonnet-latest", "claude-3-5-sonnet"),
        ("openai", "gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("openai", "gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("openai", "gpt-5.3-codex-2026-02-05", "gpt-5.3-codex"),
        ("openai", "ft:gpt-4o-2024-08-06:acme:bot:9uXyZ", "ft:gpt-4o"),
        ("openai", "computer-use-preview-2025-03-11", "computer-use"),
    ],
)
def test_dated_names_and_documented_aliases_have_the_price_of_their_model(
    provider: str, model: str, of: str
) -> None:
    assert price_list.find(provider, model).id == of


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    ("provider", "model"), [("anthropic", "claude-haiku-4-5"), ("openai", "gpt-5-mini")]
)
def test_no_other_name_has_a_price(provider: str, model: str, odd: str) -> None:
    for name in (odd.format(model), model.upper(), model.title(), f"{model}-x", model[:-1]):
        with pytest.raises(UnknownPrice):
            Prices({}).rates(provider, name)


@pytest.mark.case("C6")
def test_a_model_that_only_shares_a_prefix_with_a_known_one_is_refused(world: World) -> None:
    project, before = world.tollgate.project(credits=100), len(world.provider.requests)
    body = messages_body(model="claude-haiku-4-5,claude-opus-4-5")
    refused = world.post(world.tollgate.token(project), body=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["reason"] == "model_without_price"
    assert len(world.provider.requests) == before


def served(api: str, model: str, *, stream: bool = False) -> Script:
    """Return an answer that names a model."""
    if api == "messages":
        if stream:
            chunks = [
                chunk.replace(b"claude-sonnet-4-5", model.encode()) for chunk in messages_stream()
            ]
            return Script(200, SSE_HEADERS, chunks)
        return json_script({**message(), "model": model})
    return json_script({**(completion() if api == "chat" else response()), "model": model})


def call(world: World, api: str, model: str, answer: Script) -> Decimal:
    """Call a model; return the dollars that were booked."""
    world.provider.script = lambda _: answer
    project = world.tollgate.project(credits=1000)
    path, body = {
        "messages": ("/slack_app/v1/messages", messages_body(model=model)),
        "chat": (CHAT, chat_body(model=model, service_tier="default")),
        "responses": (RESPONSES, {"model": model, "input": "Hi", "service_tier": "default"}),
    }[api]
    body["stream"] = answer.headers.get("content-type", "").startswith("text/event-stream")
    assert world.post(world.tollgate.token(project), path, body).status_code == 200
    [event] = world.booked(project)
    assert event["properties"]["$ai_model"] == model
    return Decimal(event["properties"]["$ai_total_cost_usd"])


OTHER = "tollgate_gateway_other_model_total"


@pytest.mark.parametrize(
    ("api", "asked", "answered", "cost"),
    [
        # 100 in, 20 out: $15 and $75 per million instead of $1 and $5
        ("messages", "claude-haiku-4-5", "claude-opus-4-1-20250805", "0.003"),
        ("messages", "claude-opus-4-1", "claude-haiku-4-5", "0.003"),
        ("messages", "claude-haiku-4-5", "a-model-nobody-knows", "0.0002"),
        # 60 in, 40 cached, 20 out
        ("chat", "gpt-4o-mini", "gpt-4o", "0.0004"),
        ("responses", "gpt-5-mini", "gpt-4o", "0.0004"),
        ("chat", "gpt-4o", "gpt-4o-mini", "0.0004"),
    ],
)
def test_another_model_than_asked_for_is_charged_if_dearer_and_always_logged(
    world: World, api: str, asked: str, answered: str, cost: str
) -> None:
    before = world.metric(OTHER)
    assert call(world, api, asked, served(api, answered)) == Decimal(cost)
    wait_until(lambda: world.metric(OTHER) == before + 1, what="the metric")
    lines = world.log.read_text().splitlines()
    line = json.loads([each for each in lines if "another model answered" in each][-1])
    assert (line["level"], line["asked"], line["served"]) == ("error", asked, answered)


@pytest.mark.parametrize(
    ("api", "asked", "answered"),
    [
        ("messages", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("messages", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("messages", "claude-3-5-haiku-latest", "claude-3-5-haiku-20241022"),
        ("chat", "gpt-5-mini", "gpt-5-mini-2025-08-07"),
        ("chat", "gpt-5.3-codex", "gpt-5.3-codex-2026-02-05"),
        ("responses", "gpt-5.6", "gpt-5.6-sol"),
    ],
)
def test_a_dated_name_is_the_same_model(world: World, api, asked, answered) -> None:
    before = world.metric(OTHER)
    same = call(world, api, asked, served(api, asked))
    assert call(world, api, asked, served(api, answered)) == same
    assert world.metric(OTHER) == before


def test_the_model_that_a_stream_names_counts_too(world: World) -> None:
    before = world.metric(OTHER)
    answer = served("messages", "claude-opus-4-1", stream=True)
    assert call(world, "messages", "claude-haiku-4-5", answer) == Decimal("0.003")
    wait_until(lambda: world.metric(OTHER) == before + 1, what="the metric")
