"""The most that a call can use: input, output, and the provider's own tools.

Input is bounded by its size: a token has at least one byte of UTF-8, and JSON never takes fewer
bytes than the text in it.
"""

from typing import Any

import msgspec

from gateway.apis import COMPACT
from gateway.body.forwardable_fields import check as check_fields
from gateway.body.requests import (
    ABSENT,
    Body,
    ContextManagement,
    KnownFields,
    Lifetime,
    ModelRequest,
    Node,
    Tool,
)
from gateway.body.server_tools import ServerTools
from gateway.errors import bad_request

# Upper bounds in tokens. An image is scaled down by the provider before it is read:
# https://docs.anthropic.com/en/docs/build-with-claude/vision#evaluate-image-size (≤ 4,784) and
# https://platform.openai.com/docs/guides/images-vision#calculating-costs (≤ 48,169, gpt-4o-mini).
IMAGE_TOKENS = {"anthropic": 5_000, "openai": 50_000}
# For system prompts that a provider adds for tools or structured output (Anthropic: ≤ 700 each).
TOOLS_OVERHEAD = 1_000
OVERHEAD = 100

_TEXTUAL = frozenset(
    {
        "text", "tool_use", "tool_result", "thinking", "redacted_thinking", "search_result",
        "server_tool_use", "web_search_tool_result", "web_search_result",
        "web_search_tool_result_error", "tool_reference", "computer_call", "computer_call_output",
        "message", "function_call", "function_call_output", "custom_tool_call",
        "custom_tool_call_output", "reasoning", "summary_text", "reasoning_text", "input_text",
        "output_text", "refusal", "local_shell_call", "local_shell_call_output", "shell_call",
        "shell_call_output", "apply_patch_call", "apply_patch_call_output", "web_search_call",
        "compaction", "compaction_trigger", "ephemeral", "fallback", "file_search_call",
        "tool_search_call", "tool_search_output", "tool_addition", "tool_removal",
        "additional_tools",
    }
)  # fmt: skip
_IMAGES = frozenset({"image", "image_url", "input_image", "computer_screenshot"})
_AUDIO = frozenset({"input_audio", "audio"})
# Content that gives the model further tools.
_TOOLS_OF_THEIR_OWN = frozenset({"tool_addition", "additional_tools", "tool_search_output"})
_COMPACTS = "compaction_trigger"
_MORE_THAN_TEXT = tuple(kind.encode() for kind in (*_TOOLS_OF_THEIR_OWN, *_AUDIO, _COMPACTS))
_ADDS_A_PROMPT = ("bash_", "text_editor_", "computer_", "memory_", "browser_")
_FORMATS = ("output_format", "output_config", "response_format")
_ELSEWHERE = ("previous_response_id", "conversation", "thread")
_MODALITIES = frozenset({"text"})
_SPEEDS = frozenset({None, "standard", "fast"})
_REGIONS = frozenset({None, "", "global", "us"})
# Lifetimes of cache entries whose price is known.
_LIFETIMES = {
    "messages": frozenset({None, "5m", "1h"}),
    "chat": frozenset({None, "30m", "12h"}),
    "responses": frozenset({None, "30m", "12h"}),
}
_LONG = "12h"

_lifetime = msgspec.json.Decoder(Lifetime | None)


class UsageBound(msgspec.Struct, frozen=True, gc=False):
    """The most that a call can use.

    - `whole_context`: how many times the model may read its whole context in addition.
    - `searches`: how often the provider may charge for any of `tools`.
    - `uncapped`: whether the caller's output maximum does not apply.
    - `filtered`: whether the model may run code on what it finds, free of charge.
    """

    input_tokens: int
    output_tokens: int
    whole_context: int = 0
    cached: bool = False
    searches: int = 0
    tools: frozenset[str] = frozenset({"web_search"})
    cached_for_long: bool = False
    uncapped: bool = False
    filtered: bool = False


def usage_bound_of(
    request: ModelRequest, output_cap: int, further: frozenset[str] = frozenset()
) -> UsageBound:
    """Return the most that a call can use. `output_cap` applies if the caller set none.

    `further` are fields that the operator allows. Raises a 400 `Refusal` if there is no bound, as
    for server-side tools without a maximum number of uses.
    """
    meter, parsed, fields = request.api.meter or "", request.parsed, request.fields
    check_fields(meter, fields, further)
    _refuse_unbounded(meter, parsed)
    asked = output_cap if request.output_tokens is None else request.output_tokens
    output = asked * request.choices
    if parsed.thinking is not None and parsed.thinking.budget_tokens is not None:
        # Interleaved thinking may use its budget on top of the cap.
        output += int(parsed.thinking.budget_tokens)
    size = len(request.body) + OVERHEAD
    if _is_given(fields, "prediction"):
        output += size  # rejected prediction tokens are billed as output
    if any(_is_given(fields, name) for name in _FORMATS):
        size += TOOLS_OVERHEAD
    whole = sum(1 for name in _ELSEWHERE if _is_given(fields, name))
    most = parsed.max_tool_calls
    server_tools = ServerTools(meter, None if most is None else int(most))
    measure = _Measure(IMAGE_TOKENS[request.api.provider], meter)
    for lifetime in (parsed.cache_control, parsed.prompt_cache_options):
        measure.keep(lifetime)
    measure.cached = measure.cached or _is_given(fields, "cache_control")
    if isinstance(parsed, Body):
        for nodes in (parsed.messages, parsed.system, parsed.input):
            measure.add(nodes)
    else:
        measure.add_unknown(fields)
    tools = [*(parsed.tools or ()), *measure.tools]
    if tools or _is_given(fields, "functions"):
        size += TOOLS_OVERHEAD
    for tool in tools:
        size += TOOLS_OVERHEAD if tool.type and tool.type.startswith(_ADDS_A_PROMPT) else 0
        measure.keep_raw(tool.cache_control)
    server_tools.add(parsed.tools or ())
    server_tools.refuse(measure.tools)
    whole += measure.whole
    total = max(OVERHEAD, size + measure.extra)
    if server_tools.turns:  # each turn reads the same again, and what was written in between
        whole *= 1 + server_tools.turns
        total += server_tools.turns * (total + output)
    if server_tools.uses:  # each use reads the whole conversation again, with what it found
        whole += server_tools.uses + 1
    return UsageBound(
        total,
        output,
        whole,
        cached=measure.cached,
        searches=server_tools.paid,
        tools=frozenset(server_tools.tools),
        cached_for_long=measure.cached_for_long,
        uncapped=measure.compacts or request.api is COMPACT,
        filtered=server_tools.filtered,
    )


def _refuse_unbounded(meter: str, parsed: KnownFields) -> None:
    """Raise a 400 `Refusal` for a value whose maximum cost or price is unknown."""
    if parsed.background:
        raise bad_request("Background responses cannot be metered here.", "unmeterable")
    for modality in parsed.modalities or ():
        if modality not in _MODALITIES:
            raise bad_request(f"Output as {modality[:100]} cannot be metered here.", "unmeterable")
    if isinstance(parsed.context_management, ContextManagement):
        for edit in parsed.context_management.edits or ():
            if edit.type is None or not edit.type.startswith("clear_"):
                raise bad_request(
                    "Compaction by the provider has no known maximum cost here.", "unmeterable"
                )
    if parsed.reasoning is not None and parsed.reasoning.mode not in (None, "standard"):
        # It reasons several times, and it is not documented that the cap applies to the total:
        # https://developers.openai.com/api/docs/guides/reasoning
        raise bad_request("This mode of reasoning has no known maximum cost here.", "unmeterable")
    if meter != "messages" and "search-" in parsed.model:
        raise bad_request("Models that search have no known maximum cost here.", "unmeterable")
    if meter == "messages" and parsed.speed not in _SPEEDS:
        raise bad_request("The price of this speed is not known here.", "unmeterable")
    if meter == "messages" and parsed.inference_geo not in _REGIONS:
        raise bad_request("The price of this region is not known here.", "unmeterable")


class _Measure:
    """Adds up how much more, or less, than their bytes parts of the content count."""

    def __init__(self, image_tokens: int, meter: str) -> None:
        self.image_tokens = image_tokens
        self._meter = meter
        self.extra = 0
        self.whole = 0
        self.cached = self.cached_for_long = False
        self.compacts = False
        self.tools: list[Tool] = []

    def add(self, nodes: "str | list[Node] | Node | None") -> None:
        """Measure a list of messages, parts or items, or one of them."""
        if nodes is None or isinstance(nodes, str):
            return
        for node in (nodes,) if isinstance(nodes, Node) else nodes:
            if node.cache_control is not ABSENT:
                self.keep_raw(node.cache_control)
            if node.prompt_cache_breakpoint is not ABSENT:
                self.keep_raw(node.prompt_cache_breakpoint)
            if node.tools is not None:
                self.tools += node.tools
            if node.tool is not None and node.tool.definition is not None:
                self.tools.append(node.tool.definition)
            kind = node.type
            if kind is None or kind in _TEXTUAL:
                self.compacts = self.compacts or kind == _COMPACTS
                if node.content.__class__ is not str:
                    self.add(node.content)
                if node.output is not None:
                    self.add(node.output)
            elif kind in _IMAGES:
                self._image(node)
            elif kind in _AUDIO:
                raise bad_request("Audio input cannot be metered here.", "unmeterable")
            elif not (kind == "document" and node.source and node.source.type == "text"):
                self.whole = 1

    def add_unknown(self, fields: dict[str, msgspec.Raw]) -> None:
        """Measure content of an unknown shape, which may contain anything.

        Raises a 400 `Refusal` if it contains tools or audio.
        """
        self.whole = 1
        self.cached = self.cached_for_long = True
        parts: list[Any] = []
        for name in ("messages", "system", "input"):
            text = bytes(fields.get(name, ABSENT))
            if b"\\u" in text or any(kind in text for kind in _MORE_THAN_TEXT):
                parts.append(_any(text))
        while parts:
            part = parts.pop()
            if isinstance(part, dict):
                kind = part.get("type")
                if isinstance(kind, str) and (kind in _TOOLS_OF_THEIR_OWN or kind in _AUDIO):
                    raise bad_request(
                        f"A part of type {kind} has no known maximum cost here, because the rest "
                        "of the conversation is of an unusual shape.",
                        "unmeterable",
                    )
                self.compacts = self.compacts or kind == _COMPACTS
                part = part.values()
            parts += [inner for inner in part if inner.__class__ in (list, dict)]

    def keep_raw(self, raw: msgspec.Raw) -> None:
        """Record the lifetime in a `cache_control` or breakpoint. Raises a 400 `Refusal`."""
        if raw is ABSENT:
            return
        try:
            lifetime = _lifetime.decode(raw)
        except msgspec.ValidationError:
            raise bad_request("The lifetime of a cache is not valid.") from None
        self.cached = True
        text = bytes(raw)
        if b"\\" in text or text.count(b"ttl") > 1:
            self.cached_for_long = True
        self.keep(lifetime)

    def keep(self, lifetime: Lifetime | None) -> None:
        """Record a lifetime. Raises a 400 `Refusal` if its price is not known."""
        if lifetime is None or lifetime.ttl is None:
            return
        if lifetime.ttl not in _LIFETIMES[self._meter]:
            raise bad_request(
                f"The price of a cache of {lifetime.ttl[:20]} is not known here.", "unmeterable"
            )
        self.cached = True
        self.cached_for_long = self.cached_for_long or lifetime.ttl == _LONG

    def _image(self, node: Node) -> None:
        """Count an image once, not its base64 text."""
        data = node.image_url
        if node.source is not None:
            data = node.source.data if node.source.type == "base64" else ABSENT
        self.extra += self.image_tokens - len(data)


def _is_given(fields: dict[str, msgspec.Raw], name: str) -> bool:
    return name in fields and bytes(fields[name]) != b"null"


def _any(text: bytes) -> Any:
    try:
        value = msgspec.json.decode(text)
    except RecursionError:
        raise bad_request("The request body is nested too deeply.") from None
    return value if isinstance(value, list | dict) else []
