"""What of a request may cost money, and is therefore counted or refused."""

import json
import typing

import pytest
from anthropic.types.beta.message_create_params import MessageCreateParamsStreaming as Messages
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as Chat
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming as Responses

from gateway import apis, fields, requests
from gateway.errors import Refusal
from gateway.extent import Extent, extent_of

MINIMAL = {
    "messages": (apis.MESSAGES, {"model": "m", "max_tokens": 9, "messages": []}),
    "chat": (apis.CHAT_COMPLETIONS, {"model": "m", "messages": []}),
    "responses": (apis.RESPONSES, {"model": "m", "input": "Hi"}),
}


def extent(meter: str, further=frozenset(), **more) -> Extent:
    api, body = MINIMAL[meter]
    request = requests.read(api, json.dumps({**body, **more}).encode())
    return extent_of(request, 9, further)


@pytest.mark.parametrize(
    ("meter", "sdk"), [("messages", Messages), ("chat", Chat), ("responses", Responses)]
)
def test_every_field_of_the_sdks_is_allowed_or_refused_on_purpose(meter: str, sdk: type) -> None:
    assert typing.get_type_hints(sdk).keys() <= fields.ALLOWED[meter] | fields.REFUSED[meter]
    assert not fields.ALLOWED[meter] & fields.REFUSED[meter]


@pytest.mark.parametrize(
    ("meter", "more"),
    [
        *((meter, {name: [1]}) for meter in MINIMAL for name in sorted(fields.REFUSED[meter])),
        ("messages", {"a_new_one": 1}),
        ("messages", {"context_management": {"edits": [{"type": "compact_20260112"}]}}),
        ("messages", {"tools": [{"type": "advisor_20260301", "max_uses": 1}]}),
        ("responses", {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}),
        ("responses", {"tools": [{"type": "mcp", "server_url": "https://example.com"}]}),
        ("responses", {"reasoning": {"mode": "pro"}}),
        ("chat", {"model": "gpt-4o-search-preview"}),
        ("chat", {"model": "gpt-5-search-api"}),
    ],
)
def test_what_has_no_known_maximum_cost_is_refused(meter: str, more: dict) -> None:
    with pytest.raises(Refusal) as refused:
        extent(meter, **more)
    assert (refused.value.status, refused.value.reason) == (400, "unmeterable")


@pytest.mark.parametrize(
    ("meter", "more"),
    [
        ("messages", {"container": None, "mcp_servers": [], "a_new_one": None}),
        ("messages", {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}),
        ("messages", {"tools": [{"name": "t", "input_schema": {}}, {"type": "bash_20250124"}]}),
        ("responses", {"tools": [{"type": "shell"}, {"type": "custom", "name": "c"}]}),
        ("responses", {"reasoning": {"effort": "high", "mode": "standard", "summary": "auto"}}),
        ("responses", {"reasoning": {"effort": "max", "mode": None}}),
        ("responses", {"client_metadata": {"x": "y"}, "include": [], "store": False}),
    ],
)
def test_what_coding_agents_send_passes(meter: str, more: dict) -> None:
    assert extent(meter, **more).whole_context == 0


def test_an_operator_may_allow_further_fields_but_none_that_is_refused_on_purpose() -> None:
    extent("chat", frozenset({"a_new_one"}), a_new_one=1)
    with pytest.raises(Refusal, match="audio"):
        extent("chat", frozenset({"audio"}), audio={"voice": "x"})


def test_a_conversation_that_the_provider_keeps_counts_as_the_whole_context() -> None:
    thread = {"type": "continue", "previous_message_id": "msg_1"}
    assert extent("messages", thread=thread).whole_context == 1


def test_a_model_has_no_endless_name() -> None:
    with pytest.raises(Refusal, match="length"):
        extent("messages", model="claude-sonnet-4-5" + "x" * 250)
