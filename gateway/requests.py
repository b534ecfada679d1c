"""Reading a call's body: what the gateway has to know, and the most that it can cost.

The body goes to the provider byte for byte, but for an output cap and the usage option of a
streamed chat completion where the caller gave none. Input is bounded by its size: a token is at
least one byte of UTF-8, and JSON never takes fewer bytes than the text it holds.
"""

from typing import Annotated, Any, Literal

import msgspec

from gateway.ambiguity import TWICE, refuse_ambiguity
from gateway.apis import Api
from gateway.divided_bodies import divided
from gateway.errors import bad_request
from gateway.fields import DOCUMENTED
from gateway.fields import check as check_fields

# Upper bounds in tokens. An image is scaled down by the provider before it is read:
# https://docs.anthropic.com/en/docs/build-with-claude/vision#evaluate-image-size (≤ 4,784) and
# https://platform.openai.com/docs/guides/images-vision#calculating-costs (≤ 48,169, gpt-4o-mini).
IMAGE_TOKENS = {"anthropic": 5_000, "openai": 50_000}
# System prompts that a provider adds for tools or structured output (Anthropic: ≤ 700 each).
TOOLS_OVERHEAD = 1_000
OVERHEAD = 100
# Beyond any model of any provider; sums of what is beyond would not be exact any more.
MAX_TOKENS = 10_000_000
MAX_CHOICES = 128  # https://platform.openai.com/docs/api-reference/chat/create
MAX_USES = 1_000
# Commas and brackets of a body, in its text too. Skipping one takes some nanoseconds; what opens
# with a bracket may be read, which takes some hundreds.
MANY_COMMAS = 1_000_000
MANY_BRACKETS = 100_000
MANY_TOOLS = 1_000
LONGEST_NUMBER = 1_000  # characters
# Bytes, from which on these can be so many that it matters.
COUNTED = 256 * 1024
LARGE = 16 * 1024  # bytes, from which on it pays to read a body in two parts
MAX_MODEL = 256  # characters; the name goes into every record of the call

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


_ABSENT = msgspec.Raw()
_Tokens = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]
_Choices = Annotated[int, msgspec.Meta(le=MAX_CHOICES)]
_Uses = Annotated[int, msgspec.Meta(ge=0, le=MAX_USES)]


class _Node(msgspec.Struct, gc=False):
    """A message, content part or input item of any of the APIs, as far as its size matters."""

    type: str | None = None
    role: str | None = None
    content: "str | list[_Node] | _Node | None" = None
    output: "str | list[_Node] | _Node | None" = None
    source: "_Node | None" = None
    data: msgspec.Raw = _ABSENT
    image_url: msgspec.Raw = _ABSENT
    cache_control: msgspec.Raw = _ABSENT


class _Tool(msgspec.Struct, gc=False):
    type: str | None = None
    max_uses: _Uses | None = None
    tools: "list[_Tool] | None" = None
    environment: "_Environment | None" = None
    execution: str | None = None
    cache_control: msgspec.Raw = _ABSENT


_Tools = Annotated[list[_Tool], msgspec.Meta(max_length=MANY_TOOLS)]


class _Thinking(msgspec.Struct):
    budget_tokens: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)] | None = None


class _Reasoning(msgspec.Struct):
    mode: str | None = None


class _Edit(msgspec.Struct):
    type: str | None = None


class _ContextManagement(msgspec.Struct):
    edits: list[_Edit] | None = None


class _Environment(msgspec.Struct):
    type: str | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Known(msgspec.Struct):
    """The fields of the three metered APIs that decide about size, price or admission.

    They have to have the shape that is written here: no other is forwarded.
    """

    model: str
    stream: bool | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    max_output_tokens: _Tokens | None = None
    n: _Choices | None = None
    best_of: _Choices | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    background: bool | None = None
    modalities: list[str] | None = None
    max_tool_calls: _Uses | None = None
    thinking: _Thinking | None = None
    reasoning: _Reasoning | None = None
    stream_options: _StreamOptions | None = None
    tools: _Tools | None = None
    context_management: "_ContextManagement | list[msgspec.Raw] | None" = None


class _Body(_Known):
    """The same with the content, as far as it has a shape that is known."""

    messages: list[_Node] = []
    system: str | list[_Node] | None = None
    input: str | list[_Node] | None = None


_OUTPUT_FIELDS = {
    "messages": ("max_tokens",),
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
}
_NUMBERS = frozenset(
    {
        "best_of", "max_completion_tokens", "max_output_tokens", "max_tokens", "max_tool_calls",
        "n", "stream",
    }
)  # fmt: skip
_ELSEWHERE = ("previous_response_id", "conversation", "thread")
_top_level = msgspec.json.Decoder(dict[str, msgspec.Raw])
_documented = msgspec.json.Decoder(dict[Literal[tuple(sorted(DOCUMENTED))], msgspec.Raw])  # type: ignore[misc]
_body = msgspec.json.Decoder(_Body)
_known = msgspec.json.Decoder(_Known)
_nodes = msgspec.json.Decoder(list[_Node])
_CONVERSATION = {"messages": "messages", "chat": "messages", "responses": "input"}


class Extent(msgspec.Struct, frozen=True, gc=False):
    """The most that a call can use. `whole_context`: that many times the model's context more."""

    input_tokens: int
    output_tokens: int
    whole_context: int = 0
    cached: bool = False
    searches: int = 0


class ModelRequest(msgspec.Struct, frozen=True, gc=False):
    """A body that was read."""

    api: Api
    body: bytes
    model: str
    stream: bool
    output_tokens: int | None
    service_tier: str | None
    fast: bool
    inference_geo: str | None
    usage_asked: bool
    choices: int
    betas: bytes
    fields: dict[str, msgspec.Raw]
    parsed: _Known

    def extent(self, output_cap: int, further: frozenset[str] = frozenset()) -> Extent:
        """Bound the call; `output_cap` counts where the caller set none.

        `further` are fields that the operator knows to be harmless.
        Raises a 400 `Refusal` for what cannot be bounded, such as server-side tools without a
        maximum number of uses.
        """
        return _extent(self, output_cap, further)

    def sent_body(self, output_cap: int | None) -> bytes:
        """Return the bytes for the provider: the caller's, with what has to be injected."""
        added: dict[str, Any] = {}
        if output_cap is not None and self.output_tokens is None:
            added[_OUTPUT_FIELDS[self.api.meter or ""][0]] = output_cap
        if self.api.meter == "chat" and self.stream and not self.usage_asked:
            options = self.fields.get("stream_options")
            kept = {} if options is None else msgspec.json.decode(options) or {}
            added["stream_options"] = {**kept, "include_usage": True}
        return _with(self.body, self.fields, added) if added else self.body


def read(api: Api, body: bytes, betas: bytes = b"") -> ModelRequest:
    """Read a body; `betas` is its `anthropic-beta` header.

    Raises a 400 `Refusal` for what no provider would accept either.
    """
    if not body.isascii() and not _is_utf_8(body):
        raise bad_request("The request body is not UTF-8.")
    if len(body) > COUNTED:
        _refuse_many_parts(body)
    try:
        read_apart = _read_apart(api, body) if len(body) > LARGE else None
        if read_apart is not None:
            fields, parsed = read_apart
        else:
            fields = _fields(body)
            parsed = _parse(body)
            refuse_ambiguity(body, fields)
    except msgspec.ValidationError as error:
        raise bad_request(f"The request body is not valid: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise bad_request("The request body is not valid JSON.") from None
    except RecursionError:
        raise bad_request("The request body is nested too deeply.") from None
    if len(parsed.model) > MAX_MODEL:
        raise bad_request("No model has a name of such a length.")
    asked = [getattr(parsed, name) for name in _OUTPUT_FIELDS.get(api.meter or "", ())]
    given = [value for value in asked if value is not None]
    if any(value < 1 for value in given):
        raise bad_request("The maximum number of output tokens must be at least 1.")
    return ModelRequest(
        api=api,
        body=body,
        model=parsed.model,
        stream=bool(parsed.stream),
        output_tokens=max(given) if given else None,
        service_tier=parsed.service_tier,
        fast=parsed.speed == "fast",
        inference_geo=parsed.inference_geo,
        usage_asked=bool(parsed.stream_options and parsed.stream_options.include_usage),
        choices=max(1, parsed.n or 1, parsed.best_of or 1),
        betas=betas,
        fields=fields,
        parsed=parsed,
    )


def _refuse_many_parts(body: bytes) -> None:
    """Refuse what would block the process for long; no conversation comes near."""
    if body.count(b",") > MANY_COMMAS or body.count(b"{") + body.count(b"[") > MANY_BRACKETS:
        raise bad_request("The request body has too many parts.")


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the fields of a body; of a large one no numbers of any length, nor names."""
    if len(body) <= COUNTED:
        return _top_level.decode(body)
    try:
        fields: dict[str, msgspec.Raw] = _documented.decode(body)
    except msgspec.ValidationError:
        if body.count(b",") > MANY_BRACKETS:
            raise bad_request("A body of so many parts may have documented fields only.") from None
        fields = _top_level.decode(body)
    if any(len(fields[name]) > LONGEST_NUMBER for name in _NUMBERS & fields.keys()):
        raise bad_request("A number of the request body is too long.")
    return fields


def _is_utf_8(body: bytes) -> bool:
    """Tell whether every byte is; read leniently, one that is not may become three of UTF-8."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parse(body: bytes) -> _Known:
    """Read the fields, and the content if its shape is known."""
    try:
        return _body.decode(body)
    except msgspec.ValidationError:
        return _known.decode(body)


def _read_apart(api: Api, body: bytes) -> tuple[dict[str, msgspec.Raw], _Known] | None:
    """Read fields and content of a large body, the conversation apart from the rest.

    None where it cannot be taken out, or has a shape that is not known. Raises as reading it whole
    does.
    """
    name = _CONVERSATION[api.meter or ""]
    apart = divided(body, name)
    if apart is None:
        return None
    try:
        conversation = _nodes.decode(apart.conversation)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    fields = _top_level.decode(apart.rest)
    parsed = _parse(apart.rest)
    refuse_ambiguity(apart.rest, fields)
    if name in fields:
        raise bad_request(TWICE)
    if isinstance(parsed, _Body):
        setattr(parsed, name, conversation)
    return apart.joined(fields), parsed


def _extent(request: ModelRequest, output_cap: int, further: frozenset[str]) -> Extent:
    meter, parsed, fields = request.api.meter or "", request.parsed, request.fields
    if parsed.background:
        raise bad_request("Background responses cannot be metered here.", "unmeterable")
    if "audio" in (parsed.modalities or ()):
        raise bad_request("Audio output cannot be metered here.", "unmeterable")
    check_fields(meter, fields, further)
    if isinstance(parsed.context_management, _ContextManagement):
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
            cached = cached or tool.cache_control is not _ABSENT
            searches = max(searches, _uses(tool, meter, parsed.max_tool_calls, searches))
        # Every use of a server-side tool reads the whole conversation again.
        whole += searches + 1 if searches else 0
    if not isinstance(parsed, _Body):
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


def _uses(tool: _Tool, meter: str, max_tool_calls: int | None, sofar: int) -> int:
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

    def add(self, nodes: "str | list[_Node] | _Node | None") -> None:
        """Measure a list of messages, parts or items, or one of them."""
        if nodes is None or isinstance(nodes, str):
            return
        for node in (nodes,) if isinstance(nodes, _Node) else nodes:
            if node.cache_control is not _ABSENT:
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

    def _image(self, node: _Node) -> None:
        """Count an image once, not its base64 text."""
        data = node.image_url
        if node.source is not None:
            data = node.source.data if node.source.type == "base64" else _ABSENT
        self.extra += self.image_tokens - len(data)


def _with(body: bytes, fields: dict[str, msgspec.Raw], added: dict[str, Any]) -> bytes:
    """Return the body with further fields; what is there already keeps its bytes."""
    if not added.keys() & fields.keys():
        tail = b",".join(
            msgspec.json.encode(name) + b":" + msgspec.json.encode(value)
            for name, value in added.items()
        )
        return body.rstrip()[:-1] + b"," + tail + b"}"
    return msgspec.json.encode({**fields, **added})
