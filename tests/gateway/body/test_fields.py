"""Fields of a request that may cost money are counted or refused."""

import json
import re
import typing
from pkgutil import resolve_name

import msgspec
import pytest

from gateway import apis
from gateway.body import forwardable_fields, requests
from gateway.body.usage_bound import UsageBound, usage_bound_of
from gateway.errors import Refusal

# Types of the SDKs, which take seconds to import.
ANTHROPIC = "anthropic.types"
OPENAI = "openai.types"
MESSAGES = f"{ANTHROPIC}.beta.message_create_params:MessageCreateParamsStreaming"
STABLE_MESSAGES = f"{ANTHROPIC}.message_create_params:MessageCreateParamsStreaming"
CHAT = f"{OPENAI}.chat.completion_create_params:CompletionCreateParamsStreaming"
RESPONSES = f"{OPENAI}.responses.response_create_params:ResponseCreateParamsStreaming"
COMPACT = f"{OPENAI}.responses.response_compact_params:ResponseCompactParams"
BETA_RESPONSES = f"{OPENAI}.beta.response_create_params:ResponseCreateParamsStreaming"
MESSAGES_TOOLS = f"{ANTHROPIC}.beta.beta_tool_union_param:BetaToolUnionParam"
RESPONSES_TOOLS = f"{OPENAI}.responses.tool_param:ToolParam"
CHAT_TOOLS = f"{OPENAI}.chat.chat_completion_tool_union_param:ChatCompletionToolUnionParam"

MINIMAL = {
    "messages": (apis.MESSAGES, {"model": "m", "max_tokens": 9, "messages": []}),
    "chat": (apis.CHAT_COMPLETIONS, {"model": "m", "messages": []}),
    "responses": (apis.RESPONSES, {"model": "m", "input": "Hi"}),
}


def usage_bound(meter: str, further=frozenset(), **more) -> UsageBound:
    api, body = MINIMAL[meter]
    request = requests.read(api, json.dumps({**body, **more}).encode())
    return usage_bound_of(request, 9, further)


@pytest.mark.parametrize(
    ("meter", "sdk"),
    [
        ("messages", MESSAGES),
        ("messages", STABLE_MESSAGES),
        ("chat", CHAT),
        ("responses", RESPONSES),
        ("responses", COMPACT),
        ("responses", BETA_RESPONSES),
    ],
)
def test_every_field_of_the_sdks_is_allowed_or_refused_on_purpose(meter: str, sdk: str) -> None:
    assert (
        typing.get_type_hints(resolve_name(sdk)).keys()
        <= forwardable_fields.ALLOWED[meter] | forwardable_fields.REFUSED[meter]
    )
    assert not forwardable_fields.ALLOWED[meter] & forwardable_fields.REFUSED[meter]


@pytest.mark.parametrize(
    ("meter", "more"),
    [
        *(
            (meter, {name: [1]})
            for meter in MINIMAL
            for name in sorted(forwardable_fields.REFUSED[meter])
        ),
        ("messages", {"a_new_one": 1}),
        ("messages", {"context_management": {"edits": [{"type": "compact_20260112"}]}}),
        ("messages", {"tools": [{"type": "advisor_20260301", "max_uses": 1}]}),
        ("responses", {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}),
        ("responses", {"tools": [{"type": "mcp", "server_url": "https://example.com"}]}),
        ("responses", {"reasoning": {"mode": "pro"}}),
        *(
            (
                "messages",
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {
                                    "type": "tool_addition",
                                    "tool": {"type": "tool_definition", "definition": tool},
                                }
                            ],
                        }
                    ]
                },
            )
            for tool in ({"type": "web_search_20250305"}, {"type": "code_execution_20260521"})
        ),
        *(
            (
                "responses",
                {"input": [{"type": kind, "tools": [{"type": tool}]}], "max_tool_calls": 1},
            )
            for kind in ("additional_tools", "tool_search_output")
            for tool in ("web_search", "code_interpreter", "mcp", "a_new_one")
        ),
        # tools and audio hidden in a conversation of unknown shape
        ("messages", {"messages": [{"type": 5}, {"content": [{"type": "tool_addition"}]}]}),
        ("messages", {"messages": [{"type": 5}, {"x": [{"type": "tool\u005faddition"}]}]}),
        ("responses", {"input": [{"type": 5}, {"type": "additional_tools", "tools": []}]}),
        ("chat", {"messages": [{"type": 5, "content": [{"type": "input_audio"}]}]}),
        ("responses", {"tools": [{"type": "web_search_preview"}]}),
        ("responses", {"tools": [{"type": "tool_search"}], "max_tool_calls": 1}),
        ("responses", {"tools": [{"type": "programmatic_tool_calling"}], "max_tool_calls": 1}),
        *(
            (
                "responses",
                {
                    "tools": [{"type": "code_interpreter", "container": container}],
                    "max_tool_calls": 1,
                },
            )
            for container in (
                "cntr_1",
                None,
                {"type": "auto", "memory_limit": "64g"},
                {"type": "auto", "file_ids": ["file-1"]},
            )
        ),
        ("responses", {"prompt_cache_options": {"ttl": "24h"}}),
        (
            "responses",
            {
                "input": [
                    {"content": [{"type": "input_text", "prompt_cache_breakpoint": {"ttl": "7d"}}]}
                ]
            },
        ),
        ("messages", {"cache_control": {"type": "ephemeral", "ttl": "1d"}}),
        ("messages", {"system": [{"type": "text", "cache_control": {"ttl": "1d"}}]}),
        ("messages", {"speed": "turbo"}),
        ("messages", {"inference_geo": "mars"}),
        ("chat", {"modalities": ["text", "image"]}),
        ("chat", {"model": "gpt-4o-search-preview"}),
        ("chat", {"model": "gpt-5-search-api"}),
    ],
)
def test_fields_without_a_known_maximum_cost_are_refused(meter: str, more: dict) -> None:
    with pytest.raises(Refusal) as refused:
        usage_bound(meter, **more)
    assert (refused.value.status, refused.value.reason) == (400, "unmeterable")


@pytest.mark.parametrize(
    ("meter", "union"),
    [("messages", MESSAGES_TOOLS), ("responses", RESPONSES_TOOLS), ("chat", CHAT_TOOLS)],
)
def test_every_tool_of_the_sdks_is_bounded_or_refused_on_purpose(meter: str, union: str) -> None:
    """If this fails for a new tool, find out what it costs and add it to `server_tools.py`."""
    run_by_the_caller = {
        "bash", "text_editor", "computer", "computer_toolset", "browser_toolset", "memory",
        "custom", "function", "local_shell", "shell", "apply_patch",
        "computer_use_preview", "namespace",
    }  # fmt: skip
    bounded = {
        "web_search", "web_fetch", "tool_search_tool_bm25", "tool_search_tool_regex", "file_search",
        "web_search_preview", "code_interpreter", "image_generation",
    }  # fmt: skip
    refused = {
        "code_execution", "advisor", "mcp_toolset", "mcp", "programmatic_tool_calling",
        "tool_search",
    }  # fmt: skip
    for kind in sorted(tool_types(resolve_name(union))):
        family = re.sub(r"(_\d{8}|_\d{4}_\d\d_\d\d)\Z", "", kind)
        assert family in run_by_the_caller | bounded | refused, kind
        tool = {"type": kind, "max_uses": 1, "container": {"type": "auto"}}
        more = {"tools": [tool], "max_tool_calls": 1}
        if meter != "responses":
            del more["max_tool_calls"]
        if family in refused:
            with pytest.raises(Refusal):
                usage_bound(meter, **more)
        else:
            assert bool(usage_bound(meter, **more).whole_context) == (
                family in bounded and not family.startswith("tool_search")
            )


def tool_types(annotation: object) -> set[str]:
    """Return the types that an SDK's tools may have."""
    if typing.is_typeddict(annotation):
        hints = typing.get_type_hints(annotation)
        return set(typing.get_args(hints["type"])) - {None} if "type" in hints else set()
    return {kind for part in typing.get_args(annotation) for kind in tool_types(part)}


@pytest.mark.parametrize("value", [1024, 1024.0, "1.024e3"])
def test_whole_numbers_are_read_in_every_json_notation(value) -> None:
    for meter, names in (
        ("messages", ("max_tokens",)),
        ("chat", ("max_completion_tokens", "max_tokens")),
        ("responses", ("max_output_tokens",)),
    ):
        for name in names:
            api, body = MINIMAL[meter]
            written = json.dumps({**body, name: "HERE"}).replace('"HERE"', str(value)).encode()
            request = requests.read(api, written)
            assert request.output_tokens == 1024
            assert request.sent_body(9) == written, "what the caller wrote is sent as it is"
    assert (
        usage_bound("responses", tools=[{"type": "web_search"}], max_tool_calls=3.0).searches == 3
    )


@pytest.mark.parametrize("value", [0.5, 1e9, -1, -1.0, "5", True, [1], 1e300])
def test_invalid_numbers_of_tokens_are_refused(value) -> None:
    for meter, name in (("messages", "max_tokens"), ("chat", "max_tokens")):
        with pytest.raises(Refusal, match="not valid"):
            usage_bound(meter, **{name: value})


@pytest.mark.parametrize("meter", MINIMAL)
def test_optional_fields_may_be_null_or_empty(meter: str) -> None:
    names = forwardable_fields.ALLOWED[meter] - {"model", "messages", "input"}
    nothing = dict.fromkeys(sorted(names | forwardable_fields.REFUSED[meter]))
    given, plain = usage_bound(meter, **nothing), usage_bound(meter)
    longer = sum(len(name) + 10 for name in nothing)
    assert plain.input_tokens < given.input_tokens <= plain.input_tokens + longer
    assert msgspec.structs.replace(given, input_tokens=plain.input_tokens) == plain
    assert not usage_bound(meter, tools=[]).tools


def test_a_search_of_tools_reads_the_request_again_and_nothing_else() -> None:
    tool = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    once = usage_bound("messages", max_tokens=100)
    searched = usage_bound("messages", max_tokens=100, tools=[tool])
    assert searched.whole_context == searched.searches == 0
    assert searched.input_tokens > 11 * once.input_tokens


def test_a_search_that_filters_by_code_may_read_everything_ten_times() -> None:
    for kind, whole in (("web_search_20250305", 3), ("web_search_20260209", 11)):
        assert usage_bound("messages", tools=[{"type": kind, "max_uses": 2}]).whole_context == whole
    fetched = usage_bound("messages", tools=[{"type": "web_fetch_20250910", "max_uses": 2}])
    assert (fetched.whole_context, fetched.searches, fetched.tools) == (3, 0, frozenset())


@pytest.mark.parametrize(
    ("meter", "more"),
    [
        ("messages", {"container": None, "mcp_servers": [], "a_new_one": None}),
        ("messages", {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}),
        ("messages", {"tools": [{"name": "t", "input_schema": {}}, {"type": "bash_20250124"}]}),
        ("responses", {"tools": [{"type": "shell"}, {"type": "custom", "name": "c"}]}),
        ("responses", {"tools": [{"type": "computer"}, {"type": "computer_use_preview"}]}),
        (
            "responses",
            {
                "input": [
                    {
                        "type": "additional_tools",
                        "role": "developer",
                        "tools": [
                            {"type": "function", "name": "f"},
                            {"type": "namespace", "tools": []},
                        ],
                    }
                ]
            },
        ),
        ("responses", {"image": {"context_compression": "auto"}}),
        (
            "messages",
            {
                "messages": [
                    {
                        "role": "system",
                        "content": [
                            {
                                "type": "tool_addition",
                                "tool": {"type": "tool_reference", "name": "t"},
                            },
                            {
                                "type": "tool_addition",
                                "tool": {
                                    "type": "tool_definition",
                                    "definition": {"name": "t", "input_schema": {}},
                                },
                            },
                        ],
                    }
                ]
            },
        ),
        ("responses", {"reasoning": {"effort": "high", "mode": "standard", "summary": "auto"}}),
        ("responses", {"reasoning": {"effort": "max", "mode": None}}),
        ("responses", {"client_metadata": {"x": "y"}, "include": [], "store": False}),
    ],
)
def test_requests_of_coding_agents_pass(meter: str, more: dict) -> None:
    assert usage_bound(meter, **more).whole_context == 0


def test_an_operator_may_allow_fields_except_those_refused_on_purpose() -> None:
    usage_bound("chat", frozenset({"a_new_one"}), a_new_one=1)
    with pytest.raises(Refusal, match="audio"):
        usage_bound("chat", frozenset({"audio"}), audio={"voice": "x"})


def test_a_conversation_that_the_provider_keeps_counts_as_the_whole_context() -> None:
    thread = {"type": "continue", "previous_message_id": "msg_1"}
    assert usage_bound("messages", thread=thread).whole_context == 1


def test_an_overlong_model_name_is_refused() -> None:
    with pytest.raises(Refusal, match="too long"):
        usage_bound("messages", model="claude-sonnet-4-5" + "x" * 250)
