"""The official SDKs work unchanged through the gateway, and give up if waiting does not help."""

import threading

import pytest

from tests.gateway.conftest import DENIED, World
from tests.gateway.fake_provider import completion, json_script, message
from tests.lazy_module import LazyModule

anthropic, openai = LazyModule("anthropic"), LazyModule("openai")

HI = [{"role": "user", "content": "Hi"}]
TOOL = {"name": "look", "description": "Look.", "input_schema": {"type": "object"}}


@pytest.fixture
def credits() -> float:
    return 100


@pytest.fixture
def project(world: World, credits: float):
    return world.tollgate.project(credits=credits)


@pytest.fixture
def claude(world: World, project):
    token = world.tollgate.token(project)
    with anthropic.Anthropic(
        base_url=f"{world.url}/slack_app", auth_token=token, api_key=None
    ) as client:
        yield client


@pytest.fixture
def gpt(world: World, project):
    token = world.tollgate.token(project)
    with openai.OpenAI(base_url=f"{world.url}/slack_app/v1", api_key=token) as client:
        yield client


def test_anthropic_messages(claude, world, project) -> None:
    answer = claude.messages.create(
        model="claude-sonnet-4-6", max_tokens=100, messages=HI, tools=[TOOL]
    )
    assert answer.content[0].text == "Hello there"
    assert answer._request_id == "req_of_the_provider"
    world.booked(project)


def test_anthropic_accepts_the_token_as_an_api_key(world, project) -> None:
    token = world.tollgate.token(project)
    with anthropic.Anthropic(base_url=f"{world.url}/slack_app", api_key=token) as client:
        client.messages.create(model="claude-sonnet-4-6", max_tokens=100, messages=HI)
    world.booked(project)


def test_anthropic_streams(claude, world, project) -> None:
    with claude.messages.stream(model="claude-sonnet-4-6", max_tokens=100, messages=HI) as stream:
        assert "".join(stream.text_stream) == "piece 0 é piece 1 é piece 2 é "
        assert stream.get_final_message().usage.output_tokens == 20
    world.booked(project)


def test_anthropic_counts_tokens(claude) -> None:
    counted = claude.messages.count_tokens(model="claude-sonnet-4-6", messages=HI)
    assert counted.input_tokens == 7


def test_openai_chat(gpt, world, project) -> None:
    answer = gpt.chat.completions.create(model="gpt-4o", messages=HI)
    assert answer.choices[0].message.content == "Hello"
    world.booked(project)


def test_openai_streams_chat_without_seeing_the_usage_chunk_it_did_not_ask_for(
    gpt, world, project
) -> None:
    stream = gpt.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
    chunks = list(stream)
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)
    [event] = world.booked(project)
    assert event["properties"]["$ai_output_tokens"] == 20


def test_openai_responses_and_models(gpt, world, project) -> None:
    assert gpt.responses.create(model="gpt-4o", input="Hi").output_text == "Hello"
    with gpt.responses.stream(model="gpt-4o", input="Hi") as stream:
        assert stream.get_final_response().usage.output_tokens == 20
    assert [model.id for model in gpt.models.list()] == ["gpt-4o"]
    world.booked(project, 2)


@pytest.mark.case("G5")
@pytest.mark.parametrize("credits", [0])
def test_sdks_do_not_retry_a_denial_and_show_its_message(world, project, claude, gpt) -> None:
    world.tollgate.limit(project)
    refused_before = world.metric("tollgate_gateway_refusals_total")
    with pytest.raises(anthropic.APIStatusError, match="Top up at") as raised:
        claude.messages.create(model="claude-sonnet-4-6", max_tokens=100, messages=HI)
    assert raised.value.body["error"]["reason"] == "billable_credits"
    assert raised.value.status_code == DENIED
    with pytest.raises(openai.APIStatusError, match="Top up at") as refused:
        gpt.chat.completions.create(model="gpt-4o", messages=HI)
    assert refused.value.code == "insufficient_quota"
    with pytest.raises(openai.APIStatusError, match="Top up at"):
        gpt.responses.create(model="gpt-4o", input="Hi")
    tries = world.metric("tollgate_gateway_refusals_total") - refused_before
    assert tries == 3, "an SDK retried"


@pytest.mark.parametrize("credits", [0])
def test_sdks_do_not_retry_a_denial_with_a_requested_429(world, project, claude, gpt) -> None:
    world.tollgate.limit(project)
    wish = {"x-tollgate-denial-status": "429"}
    refused_before = world.metric("tollgate_gateway_refusals_total")
    with pytest.raises(anthropic.RateLimitError, match="Top up at"):
        claude.messages.create(
            model="claude-sonnet-4-6", max_tokens=100, messages=HI, extra_headers=wish
        )
    with pytest.raises(openai.RateLimitError, match="Top up at") as refused:
        gpt.chat.completions.create(model="gpt-4o", messages=HI, extra_headers=wish)
    assert refused.value.code == "insufficient_quota"
    with pytest.raises(openai.RateLimitError, match="Top up at"):
        gpt.responses.create(model="gpt-4o", input="Hi", extra_headers=wish)
    tries = world.metric("tollgate_gateway_refusals_total") - refused_before
    assert tries == 3, "an SDK retried"


@pytest.mark.case("G13")
def test_sdks_see_the_providers_errors_unchanged(claude, gpt, world) -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "Too odd."}}
    world.provider.script = lambda _: json_script(error, 400)
    with pytest.raises(anthropic.BadRequestError, match="Too odd"):
        claude.messages.create(model="claude-sonnet-4-6", max_tokens=100, messages=HI)
    world.provider.script = lambda _: json_script({"error": {"message": "Too odd."}}, 400)
    with pytest.raises(openai.BadRequestError, match="Too odd"):
        gpt.chat.completions.create(model="gpt-4o", messages=HI)


def test_sdks_retry_the_providers_temporary_errors(claude, gpt, world, project) -> None:
    for client, document in ((claude, message()), (gpt, completion())):
        answers = [json_script({}, 529, **{"retry-after-ms": "1"}), json_script(document)]
        world.provider.script = lambda _, answers=answers: answers.pop(0)
        if client is claude:
            client.messages.create(model="claude-sonnet-4-6", max_tokens=100, messages=HI)
        else:
            client.chat.completions.create(model="gpt-4o", messages=HI)
        assert answers == []
    assert [event["properties"]["$ai_is_error"] for event in world.booked(project, 4)] == [
        True, False, True, False,
    ]  # fmt: skip


def test_a_client_timeout_is_not_an_error_of_the_gateway(world, project) -> None:
    gate, asked = threading.Event(), []

    def slow(seen: object):
        asked.append(seen)
        answer = json_script(message())
        answer.gate = gate
        return answer

    world.provider.script = slow
    token = world.tollgate.token(project)
    patience = []
    with anthropic.Anthropic(
        base_url=f"{world.url}/slack_app", auth_token=token, max_retries=0
    ) as client:
        while not asked:  # a call given up before the provider got it would cost nothing
            patience.append(0.3 * 2 ** len(patience))
            with pytest.raises(anthropic.APITimeoutError):
                client.messages.create(
                    model="claude-sonnet-4-6", max_tokens=100, messages=HI, timeout=patience[-1]
                )
    gate.set()
    events = world.booked(project, len(asked))
    assert sum(event["debited_micro"] for event in events) == 72_000 * len(asked)
