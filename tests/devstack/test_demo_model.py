"""The demo model answers provider SDKs in their own shapes, and fails on request."""

import json
import urllib.request
from collections.abc import Iterator

import anthropic
import httpx
import openai
import pytest

from tests.conftest import wait_until
from tests.fakes import FakeModel, Usage

HELLO = [{"role": "user", "content": "How is the total computed?"}]


@pytest.fixture(scope="module")
def _server() -> Iterator[FakeModel]:
    with FakeModel() as fake:
        yield fake


@pytest.fixture
def model(_server: FakeModel) -> FakeModel:
    _server.reset()
    return _server


@pytest.fixture
def claude(model: FakeModel) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=model.url, auth_token="token", max_retries=0, timeout=60
    ) as client:
        yield client


@pytest.fixture
def gpt(model: FakeModel) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{model.url}/v1", api_key="key", max_retries=0, timeout=60
    ) as client:
        yield client


def message(client: anthropic.Anthropic, **more: object) -> anthropic.types.Message:
    return client.messages.create(model="claude-haiku-4-5", max_tokens=100, messages=HELLO, **more)


def test_an_answer_says_that_it_is_a_demonstration(claude: anthropic.Anthropic) -> None:
    [block] = message(claude).content
    assert block.text.startswith("[demo model] This is a scripted answer: no real model")
    assert block.text.endswith("You asked: How is the total computed?")


def test_an_answer_names_the_files_that_were_shown(claude: anthropic.Anthropic) -> None:
    system = '<file path="shop/basket.py">\ndef total(): …\n</file>\nREADME.md'
    assert (
        "I was shown shop/basket.py, README.md." in message(claude, system=system).content[0].text
    )


@pytest.mark.parametrize(
    ("request_text", "choice"),
    [
        ("please fix the invoices of the payments service", "acme/payments-api"),
        ("the shop is broken", "acme/web-shop"),
        ("something else entirely, and/or nothing", "none"),
    ],
)
def test_chooses_a_listed_repository_when_asked(
    claude: anthropic.Anthropic, request_text: str, choice: str
) -> None:
    answer = claude.messages.create(
        model="claude-haiku-4-5",
        max_tokens=20,
        system="Choose the one repository …\n\nRepositories:\nacme/web-shop\nacme/payments-api",
        messages=[{"role": "user", "content": request_text}],
    )
    assert answer.content[0].text == choice


def test_tokens_are_counted_from_the_length_of_the_texts(
    model: FakeModel, claude: anthropic.Anthropic
) -> None:
    model.script("x" * 40)
    usage = message(claude, system="s" * 14).usage
    assert (usage.input_tokens, usage.output_tokens) == (10, 10)
    counted = claude.messages.count_tokens(
        model="claude-haiku-4-5", system="s" * 14, messages=HELLO
    )
    assert counted.input_tokens == 10


def test_usage_can_be_scripted_with_cache_reads_and_writes(
    model: FakeModel, claude: anthropic.Anthropic, gpt: openai.OpenAI
) -> None:
    usage = Usage(input=7, output=5, cache_read=100, cache_creation=30)
    model.answer_next("cached", usage=usage)
    said = message(claude).usage
    assert (said.input_tokens, said.output_tokens) == (7, 5)
    assert (said.cache_read_input_tokens, said.cache_creation_input_tokens) == (100, 30)
    model.answer_next("cached", usage=usage)
    completion = gpt.chat.completions.create(model="gpt-5", messages=HELLO)
    assert completion.usage.prompt_tokens == 107
    assert completion.usage.prompt_tokens_details.cached_tokens == 100


def test_a_streamed_message_adds_up_to_the_whole_message(
    model: FakeModel, claude: anthropic.Anthropic
) -> None:
    text = "a longer answer, which comes in several pieces ✓"
    model.answer_next(text, usage=Usage(input=3, output=9, cache_read=2))
    with claude.messages.stream(model="claude-haiku-4-5", max_tokens=100, messages=HELLO) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == text == final.content[0].text
    assert (final.usage.input_tokens, final.usage.output_tokens) == (3, 9)
    assert final.usage.cache_read_input_tokens == 2
    assert final.stop_reason == "end_turn"


def test_a_streamed_chat_completion_carries_usage_only_when_asked(
    model: FakeModel, gpt: openai.OpenAI
) -> None:
    model.script("one two three four five", "one two three four five")
    asked = {"model": "gpt-5", "messages": HELLO, "stream": True}
    chunks = list(gpt.chat.completions.create(**asked, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "one two three four five"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 6
    chunks = list(gpt.chat.completions.create(**asked))
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_responses_api_whole_and_streamed(model: FakeModel, gpt: openai.OpenAI) -> None:
    model.script("the whole answer", "the streamed answer")
    whole = gpt.responses.create(model="gpt-5", instructions="be brief", input="hello")
    assert whole.output_text == "the whole answer"
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    events = list(gpt.responses.create(model="gpt-5", input=HELLO, stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "the streamed answer"
    assert events[-1].response.usage.output_tokens == 5
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_models_are_listed_for_either_client(
    claude: anthropic.Anthropic, gpt: openai.OpenAI
) -> None:
    assert "claude-haiku-4-5" in [listed.id for listed in claude.models.list()]
    assert "gpt-5" in [listed.id for listed in gpt.models.list()]


def test_errors_have_the_shape_of_the_called_api(
    model: FakeModel, claude: anthropic.Anthropic, gpt: openai.OpenAI
) -> None:
    model.fail_next(529, "overloaded_error", "busy", headers={"retry-after": "3"}, times=2)
    with pytest.raises(anthropic.APIStatusError) as refused:
        message(claude)
    assert refused.value.status_code == 529
    assert refused.value.body["error"] == {"type": "overloaded_error", "message": "busy"}
    assert refused.value.response.headers["retry-after"] == "3"
    assert refused.value.response.headers["request-id"].startswith("req_demo_")
    with pytest.raises(openai.APIStatusError) as refused:
        gpt.chat.completions.create(model="gpt-5", messages=HELLO)
    assert refused.value.body["type"] == "overloaded_error"
    assert message(claude).content


def test_a_request_without_a_model_is_refused(model: FakeModel) -> None:
    answer = httpx.post(f"{model.url}/v1/messages", json={"messages": HELLO})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_stream_can_break_in_the_middle(model: FakeModel, claude: anthropic.Anthropic) -> None:
    model.cut_next("an answer that nobody hears to its end", after_events=4)
    asked = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": HELLO}
    heard = []
    with (
        pytest.raises(Exception, match="peer closed connection"),
        claude.messages.stream(**asked) as stream,
    ):
        heard.extend(stream.text_stream)
    assert heard == ["an answer that n"]


def test_a_hanging_request_is_answered_late(model: FakeModel) -> None:
    model.hang_next(5)
    with (
        anthropic.Anthropic(
            base_url=model.url, auth_token="token", max_retries=0, timeout=0.3
        ) as impatient,
        pytest.raises(anthropic.APITimeoutError),
    ):
        message(impatient)
    wait_until(model.requests, what="its request being read")


def test_requests_are_recorded_unchanged(model: FakeModel, claude: anthropic.Anthropic) -> None:
    message(claude, system="be brief")
    [request] = model.requests("/v1/messages")
    assert request.headers["authorization"] == "Bearer token"
    assert request.body["system"] == "be brief"
    assert json.loads(request.raw) == request.body
    assert model.requests("/v1/chat/completions") == []


def test_replies_can_be_scripted_over_http(model: FakeModel, claude: anthropic.Anthropic) -> None:
    url = f"{model.url}/_control/replies"
    replies = [{"text": "asked for", "usage": {"input": 1, "output": 2}}]
    assert httpx.post(url, json=replies).status_code == 200
    assert httpx.post(url, json=[{"txt": "a slip"}]).status_code == 422
    answer = message(claude)
    assert (answer.content[0].text, answer.usage.output_tokens) == ("asked for", 2)
    with urllib.request.urlopen(f"{model.url}/_control/requests") as response:
        assert [entry["path"] for entry in json.load(response)] == ["/v1/messages"]
