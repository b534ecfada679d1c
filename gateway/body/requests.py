"""Reading a call's body: what the gateway has to know, and what it adds.

The body goes to the provider byte for byte. Only an output cap and the usage option of a streamed
chat completion are added, if the caller gave none. `usage_bound.py` bounds what the call can use.
"""

from typing import Annotated, Any, Literal

import msgspec

from gateway.apis import Api
from gateway.body.divided_bodies import divide
from gateway.body.duplicate_fields import TWICE, refuse_ambiguity
from gateway.body.forwardable_fields import DOCUMENTED
from gateway.errors import bad_request

# More than any model supports. With larger numbers, sums would not be exact.
MAX_TOKENS = 10_000_000
MAX_CHOICES = 128  # https://platform.openai.com/docs/api-reference/chat/create
MAX_USES = 1_000
# Commas and brackets of a body, including those in its text. Skipping one takes some nanoseconds;
# a value that begins with a bracket may be read, which takes some hundreds.
MANY_COMMAS = 1_000_000
MANY_BRACKETS = 100_000
MANY_TOOLS = 1_000
LONGEST_NUMBER = 1_000  # characters
# Smaller bodies (in bytes) are not checked, because they cannot have enough of these to matter.
COUNTED = 256 * 1024
LARGE = 16 * 1024  # bytes; larger bodies are faster to read in two parts
MAX_MODEL = 256  # characters; the name is in every record of the call

ABSENT = msgspec.Raw()
# Whole numbers, which JSON may also write as 1024.0 or 1e3; see `_made_whole`.
_OF_TOKENS = msgspec.Meta(ge=0, le=MAX_TOKENS)
_OF_CHOICES = msgspec.Meta(ge=0, le=MAX_CHOICES)
_OF_USES = msgspec.Meta(ge=0, le=MAX_USES)
_Tokens = Annotated[int, _OF_TOKENS] | Annotated[float, _OF_TOKENS]
_Choices = Annotated[int, _OF_CHOICES] | Annotated[float, _OF_CHOICES]
_Uses = Annotated[int, _OF_USES] | Annotated[float, _OF_USES]


def _made_whole(struct: msgspec.Struct, *names: str) -> None:
    """Turn numbers like 1024.0 into integers. Raises `ValueError` if one is not whole."""
    for name in names:
        value = getattr(struct, name)
        if value.__class__ is float:
            if not value.is_integer():
                raise ValueError(f"{name} must be a whole number")
            setattr(struct, name, int(value))


class Node(msgspec.Struct, gc=False):
    """A message, content part or input item of any API, with the fields that affect its size."""

    type: str | None = None
    role: str | None = None
    content: "str | list[Node] | Node | None" = None
    output: "str | list[Node] | Node | None" = None
    source: "Node | None" = None
    data: msgspec.Raw = ABSENT
    image_url: msgspec.Raw = ABSENT
    cache_control: msgspec.Raw = ABSENT
    prompt_cache_breakpoint: msgspec.Raw = ABSENT
    tools: "list[Tool] | None" = None
    tool: "ToolChange | None" = None


class ToolChange(msgspec.Struct, gc=False):
    """A tool that is named or defined within a conversation."""

    definition: "Tool | None" = None


class Tool(msgspec.Struct, gc=False):
    """A tool that the model may use, or a group of them."""

    type: str | None = None
    max_uses: _Uses | None = None
    tools: "list[Tool] | None" = None
    environment: "_Environment | None" = None
    container: "str | _Container | None" = None
    execution: str | None = None
    cache_control: msgspec.Raw = ABSENT

    def __post_init__(self) -> None:
        _made_whole(self, "max_uses")


_Tools = Annotated[list[Tool], msgspec.Meta(max_length=MANY_TOOLS)]


class _Thinking(msgspec.Struct):
    budget_tokens: _Tokens | None = None

    def __post_init__(self) -> None:
        _made_whole(self, "budget_tokens")


class _Reasoning(msgspec.Struct):
    mode: str | None = None


class _Edit(msgspec.Struct):
    type: str | None = None


class ContextManagement(msgspec.Struct):
    """What a provider may remove from a conversation, or summarize."""

    edits: list[_Edit] | None = None


class _Environment(msgspec.Struct):
    type: str | None = None


class _Container(msgspec.Struct):
    type: str | None = None
    memory_limit: str | None = None
    file_ids: msgspec.Raw = ABSENT


class Lifetime(msgspec.Struct):
    """How long a provider is asked to keep what it writes into its cache."""

    ttl: str | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class KnownFields(msgspec.Struct):
    """The fields of the three metered APIs that decide about size, price or admission.

    A request whose fields have another shape is refused.
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
    context_management: "ContextManagement | list[msgspec.Raw] | None" = None
    cache_control: Lifetime | None = None
    prompt_cache_options: Lifetime | None = None

    def __post_init__(self) -> None:
        _made_whole(
            self,
            "max_tokens",
            "max_completion_tokens",
            "max_output_tokens",
            "n",
            "best_of",
            "max_tool_calls",
        )


class Body(KnownFields):
    """The known fields and the content, if that has a known shape."""

    messages: list[Node] = []
    system: str | list[Node] | None = None
    input: str | list[Node] | None = None


_NUMBERS = frozenset(
    {
        "best_of", "max_completion_tokens", "max_output_tokens", "max_tokens", "max_tool_calls",
        "n", "stream",
    }
)  # fmt: skip
_top_level = msgspec.json.Decoder(dict[str, msgspec.Raw])
_documented = msgspec.json.Decoder(dict[Literal[tuple(sorted(DOCUMENTED))], msgspec.Raw])  # type: ignore[misc]
_body = msgspec.json.Decoder(Body)
_known = msgspec.json.Decoder(KnownFields)
_nodes = msgspec.json.Decoder(list[Node])
_CONVERSATION = {"messages": "messages", "chat": "messages", "responses": "input"}


class ModelRequest(msgspec.Struct, frozen=True, gc=False):
    """A parsed body."""

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
    parsed: KnownFields

    def sent_body(self, output_cap: int | None) -> bytes:
        """Return the body for the provider: the caller's, with the cap and usage option added."""
        added: dict[str, Any] = {}
        if output_cap is not None and self.output_tokens is None and self.api.output_fields:
            added[self.api.output_fields[0]] = output_cap
        if self.api.meter == "chat" and self.stream and not self.usage_asked:
            options = self.fields.get("stream_options")
            kept = {} if options is None else msgspec.json.decode(options) or {}
            added["stream_options"] = {**kept, "include_usage": True}
        return _with(self.body, self.fields, added) if added else self.body


def read(api: Api, body: bytes, betas: bytes = b"") -> ModelRequest:
    """Return the parsed body; `betas` is the value of the `anthropic-beta` header.

    Raises a 400 `Refusal` if the body is not valid.
    """
    if not body.isascii() and not _is_utf_8(body):
        raise bad_request("The request body is not UTF-8.")
    if len(body) > COUNTED:
        _refuse_many_parts(body)
    try:
        in_parts = _read_divided(api, body) if len(body) > LARGE else None
        if in_parts is not None:
            fields, parsed = in_parts
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
        raise bad_request("The name of the model is too long.")
    asked = [getattr(parsed, name) for name in api.output_fields]
    given = [value for value in asked if value is not None]
    # Anthropic accepts 0, which only writes the cache. OpenAI refuses it.
    if api.meter != "messages" and any(value < 1 for value in given):
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
        choices=max(1, int(parsed.n or 1), int(parsed.best_of or 1)),
        betas=betas,
        fields=fields,
        parsed=parsed,
    )


def _refuse_many_parts(body: bytes) -> None:
    """Refuse a body that would block the process for long. No real conversation is that large."""
    if body.count(b",") > MANY_COMMAS or body.count(b"{") + body.count(b"[") > MANY_BRACKETS:
        raise bad_request("The request body has too many parts.")


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the fields of a body. Refuse a large one with very long numbers or too many names."""
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
    """Return whether the body is UTF-8. Read leniently, a wrong byte could become three bytes."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parse(body: bytes) -> KnownFields:
    """Return the known fields, with the content if its shape is known."""
    try:
        return _body.decode(body)
    except msgspec.ValidationError:
        return _known.decode(body)


def _read_divided(api: Api, body: bytes) -> tuple[dict[str, msgspec.Raw], KnownFields] | None:
    """Return fields and content of a large body, reading the conversation and the rest separately.

    Returns None if the conversation cannot be taken out or has an unknown shape. Raises the same
    errors as reading the whole body.
    """
    name = _CONVERSATION[api.meter or ""]
    parts = divide(body, name)
    if parts is None:
        return None
    try:
        conversation = _nodes.decode(parts.conversation)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    fields = _top_level.decode(parts.rest)
    parsed = _parse(parts.rest)
    refuse_ambiguity(parts.rest, fields)
    if name in fields:
        raise bad_request(TWICE)
    if isinstance(parsed, Body):
        setattr(parsed, name, conversation)
    return parts.joined(fields), parsed


def _with(body: bytes, fields: dict[str, msgspec.Raw], added: dict[str, Any]) -> bytes:
    """Return the body with added fields; all other fields keep their bytes."""
    if not added.keys() & fields.keys():
        tail = b",".join(
            msgspec.json.encode(name) + b":" + msgspec.json.encode(value)
            for name, value in added.items()
        )
        return body.rstrip()[:-1] + b"," + tail + b"}"
    return msgspec.json.encode({**fields, **added})
