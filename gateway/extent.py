"""The most that a call can use: input, output, and what the provider does besides.

Input is bounded by its size: a token is at least one byte of UTF-8, and JSON never takes fewer
bytes than the text it holds.
"""

import msgspec

from gateway.errors import bad_request
from gateway.fields import check as check_fields
from gateway.requests import ABSENT, Body, ContextManagement, ModelRequest, Node, Tool

# Upper bounds in tokens. An image is scaled down by the provider before it is read:
# https://docs.anthropic.com/en/docs/build-with-claude/vision#evaluate-image-size (≤ 4,784) and
# https://platform.openai.com/docs/guides/images-vision#calculating-costs (≤ 48,169, gpt-4o-mini).
IMAGE_TOKENS = {"anthropic": 5_000, "openai": 50_000}
# System prompts that a provider adds for tools or structured output (Anthropic: ≤ 700 each).
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
        "compaction", "ephemeral",
    }
)  # fmt: skip
_IMAGES = frozenset({"image", "image_url", "input_image", "computer_screenshot"})
_AUDIO = frozenset({"input_audio", "audio"})
_CLIENT_TOOLS = ("bash_", "text_editor_", "computer_", "memory_", "browser_")
_OPENAI_CLIENT_TOOLS = frozenset({"function", "custom", "local_shell", "shell", "apply_patch"})
_ELSEWHERE = ("previous_response_id", "conversation", "thread")


class Extent(msgspec.Struct, frozen=True, gc=False):
    """The most that a call can use. `whole_context`: that many times the model's context more."""

    input_tokens: int
    output_tokens: int
    whole_context: int = 0
    cached: bool = False
    searches: int = 0


def extent_of(
    request: ModelRequest, output_cap: int, further: frozenset[str] = frozenset()
) -> Extent:
    """Bound a call; `output_cap` counts where the caller set none.

    `further` are fields that the operator knows to be harmless.
    Raises a 400 `Refusal` for what cannot be bounded, such as server-side tools without a
    maximum number of uses.
    """
    meter, parsed, fields = request.api.meter or "", request.parsed, request.fields
    if parsed.background:
        raise bad_request("Background responses cannot be metered here.", "unmeterable")
    if "audio" in (parsed.modalities or ()):
        raise bad_request("Audio output cannot be metered here.", "unmeterable")
    check_fields(meter, fields, further)
    if isinstance(parsed.context_management, ContextManagement):
        for edit in parsed.context_management.edits or ():
            if edit.type is None or not edit.type.startswith("clear_"):
                raise bad_request(
                    "Compaction by the provider has no known maximum cost here.", "unmeterable"
                )
    if parsed.reasoning is not None and parsed.reasoning.mode not in (None, "standard"):
        # It reasons several times over, and nothing says that the cap holds for all of it:
        # https://developers.openai.com/api/docs/guides/reasoning
        raise bad_request("This mode of reasoning has no known maximum cost here.", "unmeterable")
    if meter == "chat" and "search-" in parsed.model:
        raise bad_request("Models that search have no known maximum cost here.", "unmeterable")
    output = (request.output_tokens or output_cap) * request.choices
    if parsed.thinking is not None and parsed.thinking.budget_tokens is not None:
        # Interleaved thinking may use its budget on top of the cap.
        output += max(0, parsed.thinking.budget_tokens)
    size = len(request.body) + OVERHEAD
    if "prediction" in fields:
        output += size  # rejected prediction tokens are billed as output
    if "output_format" in fields or "output_config" in fields or "response_format" in fields:
        size += TOOLS_OVERHEAD
    whole = sum(1 for name in _ELSEWHERE if name in fields and bytes(fields[name]) != b"null")
    cached = "cache_control" in fields
    searches = 0
    if parsed.tools:
        size += TOOLS_OVERHEAD
        for tool in parsed.tools:
            size += TOOLS_OVERHEAD if tool.type and tool.type.startswith(_CLIENT_TOOLS) else 0
            cached = cached or tool.cache_control is not ABSENT
            searches = max(searches, _uses(tool, meter, parsed.max_tool_calls, searches))
        # Every use of a server-side tool reads the whole conversation again.
        whole += searches + 1 if searches else 0
    if not isinstance(parsed, Body):
        return Extent(size, output, whole + 1, cached=True, searches=searches)
    measure = _Measure(IMAGE_TOKENS[request.api.provider])
    for nodes in (parsed.messages, parsed.system, parsed.input):
        measure.add(nodes)
    return Extent(
        max(OVERHEAD, size + measure.extra),
        output,
        whole + measure.whole,
        cached=cached or measure.cached,
        searches=searches,
    )


def _uses(tool: Tool, meter: str, max_tool_calls: int | None, sofar: int) -> int:
    """Return how often the provider may run tools, this one included."""
    kind = tool.type
    if kind == "shell" and tool.environment and tool.environment.type != "local":
        raise bad_request("The provider's shell has no known maximum cost here.", "unmeterable")
    if kind == "tool_search" and tool.execution == "client":
        return sofar
    if kind is None or kind in _OPENAI_CLIENT_TOOLS or kind.startswith(_CLIENT_TOOLS):
        return sofar
    if kind == "namespace":  # a group of tools, each of its own kind
        for inner in tool.tools or ():
            sofar = _uses(inner, meter, max_tool_calls, sofar)
        return sofar
    if meter == "messages" and kind.startswith(("web_search_", "web_fetch_")):
        uses = tool.max_uses
        limit = None if uses is None else sofar + uses
    elif meter == "responses" and kind in ("web_search", "file_search"):
        limit = max_tool_calls
    else:
        limit = None
    if limit is None or limit < 0:
        raise bad_request(
            f"The server-side tool {kind} needs a maximum number of uses to be metered here.",
            "unmeterable",
        )
    return limit


class _Measure:
    """Adds up what parts of the content count for beyond, or below, their bytes."""

    def __init__(self, image_tokens: int) -> None:
        self.image_tokens = image_tokens
        self.extra = 0
        self.whole = 0
        self.cached = False

    def add(self, nodes: "str | list[Node] | Node | None") -> None:
        """Measure a list of messages, parts or items, or one of them."""
        if nodes is None or isinstance(nodes, str):
            return
        for node in (nodes,) if isinstance(nodes, Node) else nodes:
            if node.cache_control is not ABSENT:
                self.cached = True
            kind = node.type
            if kind is None or kind in _TEXTUAL:
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

    def _image(self, node: Node) -> None:
        """Count an image once, not its base64 text."""
        data = node.image_url
        if node.source is not None:
            data = node.source.data if node.source.type == "base64" else ABSENT
        self.extra += self.image_tokens - len(data)
