"""The demo model answers provider SDKs in their own shapes, and fails on request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from devstack.bootstrap import REPOSITORIES
from devstack.demo_model.script import Reply, ToolCall
from tests.conftest import wait_until
from tests.fakes import FakeModel, Usage
from tests.lazy_module import LazyModule

if TYPE_CHECKING:
    import anthropic
    import openai
else:
    anthropic, openai = LazyModule("anthropic"), LazyModule("openai")

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


# --- calls of tools -------------------------------------------------------------------------------

WEATHER = {"city": "Zürich"}
CALLED = Reply("I look.", tools=(ToolCall("weather", WEATHER),))
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def test_a_tools_call_has_the_shape_of_messages(
    model: FakeModel, claude: anthropic.Anthropic
) -> None:
    model.script(CALLED, CALLED)
    asked = {
        "model": "claude-haiku-4-5",
        "max_tokens": 100,
        "messages": HELLO,
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
    }
    whole = claude.messages.create(**asked)
    with claude.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        text, call = message.content
        assert (text.text, call.name, call.input) == ("I look.", "weather", WEATHER)
        assert message.stop_reason == "tool_use"
    assert whole.usage.output_tokens > len("I look.") // 4, "the call's arguments are billed"


def test_a_tools_call_has_the_shape_of_chat_completions(
    model: FakeModel, gpt: openai.OpenAI
) -> None:
    model.script(CALLED, CALLED)
    asked = {
        "model": "gpt-5",
        "messages": HELLO,
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
    }
    [choice] = gpt.chat.completions.create(**asked).choices
    [call] = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", WEATHER)
    assert choice.finish_reason == "tool_calls"
    with gpt.chat.completions.stream(**asked) as stream:
        [choice] = stream.get_final_completion().choices
    assert json.loads(choice.message.tool_calls[0].function.arguments) == WEATHER


def test_a_tools_call_has_the_shape_of_responses(model: FakeModel, gpt: openai.OpenAI) -> None:
    free = Reply(tools=(ToolCall("shell", "ls -la"),))
    model.script(CALLED, CALLED, free)
    asked = {"model": "gpt-5", "input": "hello"}
    message, call = gpt.responses.create(**asked).output
    assert message.content[0].text == "I look."
    assert (call.type, call.name, json.loads(call.arguments)) == (
        *("function_call", "weather"),
        WEATHER,
    )
    events = list(gpt.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert json.loads(done[0].arguments) == WEATHER
    [call] = gpt.responses.create(**asked).output
    assert (call.type, call.input) == ("custom_tool_call", "ls -la")


def test_what_tools_return_is_part_of_the_bill(claude: anthropic.Anthropic) -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "x" * 400}
    call = {"type": "tool_use", "id": "t1", "name": "weather", "input": WEATHER}
    messages = [
        *HELLO,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    counted = claude.messages.count_tokens(model="claude-haiku-4-5", messages=messages)
    assert counted.input_tokens > 100


def test_tools_calls_can_be_scripted_over_http(
    model: FakeModel, claude: anthropic.Anthropic
) -> None:
    replies = [{"tools": [{"name": "weather", "arguments": WEATHER}]}]
    assert httpx.post(f"{model.url}/_control/replies", json=replies).status_code == 200
    [call] = message(claude).content
    assert call.input == WEATHER


# --- the demo's edits -----------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return a copy of the demo's web shop."""
    tree = tmp_path / "shop"
    for name, text in REPOSITORIES["acme/web-shop"].items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return tree


def small_agent(model: FakeModel, tree: Path, prompt: str, session: str = "") -> list[dict]:
    """Run the small agent, which devstack must not import; return its events."""
    program = Path(__file__).parents[2] / "coding_tasks" / "agents" / "inside" / "small_agent.py"
    options = [f"--base-url={model.url}", "--model=claude-sonnet-4-5", f"--session={session}"]
    ran = subprocess.run(
        [sys.executable, "-I", str(program), *options],
        input=prompt.encode(),
        cwd=tree,
        env={"HOME": str(tree.parent), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=True,
    )
    return [json.loads(line) for line in ran.stdout.splitlines()]


def version_of(tree: Path) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "shop", "--version"], cwd=tree, capture_output=True, check=True
    )
    return ran.stdout.decode().strip()


def test_adds_the_flag_and_then_documents_it(model: FakeModel, shop: Path) -> None:
    before = (shop / "shop" / "__main__.py").read_text().splitlines()
    events = small_agent(model, shop, "Add a --version flag to the web shop")
    assert events[-1]["text"].startswith("[demo model] I added the flag --version")
    assert version_of(shop) == "shop 1.0.0"
    after = (shop / "shop" / "__main__.py").read_text().splitlines()
    assert [line for line in after if line not in before] == [
        'parser.add_argument("--version", action="version", version="shop 1.0.0")'
    ]
    assert [line for line in before if line not in after] == []

    session = events[0]["id"]
    events = small_agent(model, shop, "also document it", session)
    assert events[-1]["text"].startswith("[demo model] I documented the flag")
    readme = (shop / "README.md").read_text()
    assert readme.startswith(REPOSITORIES["acme/web-shop"]["README.md"])
    assert "`python3 -m shop --version` prints" in readme


def test_the_same_edit_is_not_made_twice(model: FakeModel, shop: Path) -> None:
    for request in ("add --version", "document it"):
        small_agent(model, shop, request)
        tree = {path: path.read_bytes() for path in shop.rglob("*") if path.is_file()}
        events = small_agent(model, shop, request)
        assert "already" in events[-1]["text"]
        assert {path: path.read_bytes() for path in shop.rglob("*") if path.is_file()} == tree


def test_a_shop_of_an_older_stack_gets_the_program_and_the_flag(
    model: FakeModel, shop: Path
) -> None:
    (shop / "shop" / "__main__.py").unlink()
    small_agent(model, shop, "add --version")
    assert version_of(shop) == "shop 1.0.0"


def test_edits_of_two_runs_are_the_same(model: FakeModel, shop: Path, tmp_path: Path) -> None:
    other = tmp_path / "again" / "shop"
    other.parent.mkdir()
    subprocess.run(["cp", "-r", shop, other], check=True)
    runs = [small_agent(model, tree, "add --version")[1:] for tree in (shop, other)]
    assert runs[0] == runs[1]
    assert (shop / "shop/__main__.py").read_bytes() == (other / "shop/__main__.py").read_bytes()


def test_any_other_request_changes_nothing(model: FakeModel, shop: Path, tmp_path: Path) -> None:
    events = small_agent(model, shop, "how is the total computed?")
    assert events[-1]["text"].startswith("[demo model] This is a scripted answer")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").touch()
    events = small_agent(model, tmp_path / "other", "add --version")
    assert events[-1]["text"].startswith("[demo model] This is a scripted answer")
    assert not (tmp_path / "other" / "shop").exists()
