"""Anthropic's Messages API: https://platform.claude.com/docs/en/build-with-claude/streaming.

Usage is reported in the message, or in `message_start` and cumulatively in each `message_delta`.
"""

import msgspec
from msgspec.structs import replace

from gateway.metering.excerpt import Text
from gateway.metering.reading import (
    NULL,
    UNREADABLE,
    Form,
    MaybeCount,
    Reader,
    is_error,
    is_given,
    read_usage,
    tier,
    word,
)
from gateway.metering.usage import ExtraUsage, Usage

# The message's own tokens do not include the usage of these iterations. For `compaction`, the
# provider's SDK says so; for `advisor_message`, see
# https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool.
_EXTRA = frozenset({"compaction", "advisor_message"})


class _Block(msgspec.Struct, gc=False):
    type: str | None = None
    name: str | None = None
    text: Text = None
    thinking: Text = None


class _Delta(msgspec.Struct, gc=False):
    text: Text = None
    thinking: Text = None
    partial_json: Text = None
    content: Text = None  # of a compaction
    stop_reason: str | None = None


class _Message(msgspec.Struct, gc=False):
    model: str | None = None
    usage: msgspec.Raw = NULL


class _Document(_Message, gc=False):
    type: str | None = None
    error: msgspec.Raw = NULL
    content: list[_Block | None] | None = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: msgspec.Raw = NULL
    error: msgspec.Raw = NULL


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: MaybeCount = None
    ephemeral_1h_input_tokens: MaybeCount = None


class _ServerTools(msgspec.Struct):
    web_search_requests: MaybeCount = None
    web_fetch_requests: MaybeCount = None
    code_execution_requests: MaybeCount = None


class _Tokens(msgspec.Struct):
    input_tokens: MaybeCount = None
    output_tokens: MaybeCount = None
    cache_creation_input_tokens: MaybeCount = None
    cache_read_input_tokens: MaybeCount = None
    cache_creation: _CacheCreation | None = None


class _Iteration(_Tokens):
    type: str | None = None
    model: str | None = None


class _Usage(_Tokens):
    iterations: msgspec.Raw = NULL
    server_tool_use: _ServerTools | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None


_usage = msgspec.json.Decoder(_Usage)
_iterations = msgspec.json.Decoder(list[_Iteration])


class MessagesReader(Reader):
    """Reads messages."""

    document_form = Form(_Document)
    event_form = Form(_Event)

    def __init__(self) -> None:
        super().__init__()
        self._model: str | None = None
        self._searches_seen = 0
        self._output_reported = False  # by the latest `message_delta`

    def document(self, data: bytes) -> None:
        """Read a message, or an error."""
        message: _Document = self.document_form.read(data)
        self.failed = message.type == "error" or is_error(message.error)
        for block in message.content or ():
            if block is not None:
                self.unreported.add(block.text or block.thinking)
        self._model = word(message.model)
        self.finished = True
        self.final = self._update(message.usage)

    def event(self, data: bytes, name: bytes) -> bool:
        """Read an event."""
        event: _Event = self.event_form.read(data)
        delta, block = event.delta, event.content_block
        match event.type or name.decode("latin-1"):
            case "content_block_delta" if delta is not None:
                self.unreported.add(
                    delta.text or delta.thinking or delta.partial_json or delta.content
                )
            case "content_block_start" if block is not None:
                self.unreported.add(block.text or block.thinking)
                if block.type == "server_tool_use" and block.name == "web_search":
                    self._searches_seen += 1
            case "message_start" if event.message is not None:
                self._model = word(event.message.model) or self._model
                self._update(event.message.usage)
            case "message_delta":
                self._output_reported = self._update(event.usage) or self._output_reported
                ended = delta is not None and delta.stop_reason is not None
                self.final = self._output_reported and ended
            case "message_stop":
                self.finished = True
                self.final = self._output_reported
            case "error":
                self.failed = True
                self._update(event.usage)
            case _ if is_error(event.error):
                self.failed = True
                self._update(event.usage)
        return False

    @property
    def tools_ran(self) -> bool:
        """Whether more searches began than were reported."""
        return self._searches_seen > (self.usage or Usage()).web_searches

    def done(self) -> None:
        """Do nothing: this API has an event for its end."""

    def used_so_far(self) -> Usage:
        """Return the usage reported so far, and searches that began since."""
        usage = self.usage or Usage(model=self._model)
        return replace(usage, web_searches=max(usage.web_searches, self._searches_seen))

    def _update(self, raw: msgspec.Raw) -> bool:
        """Take in reported usage; return whether it includes the output."""
        if not is_given(raw):
            return False
        try:
            reported = read_usage(_usage, raw)
        except UNREADABLE:
            self.unreadable = True
            return False
        self.unreadable = False
        before = self.usage or Usage()
        five, hour = _cache_writes(reported, before)
        tools = reported.server_tool_use or _ServerTools()
        self.usage = Usage(
            input=_newer(reported.input_tokens, before.input),
            cache_read=_newer(reported.cache_read_input_tokens, before.cache_read),
            cache_write_5m=five,
            cache_write_1h=hour,
            output=_newer(reported.output_tokens, before.output),
            web_searches=_newer(tools.web_search_requests, before.web_searches),
            web_fetches=_newer(tools.web_fetch_requests, before.web_fetches),
            code_executions=_newer(tools.code_execution_requests, before.code_executions),
            service_tier=tier(reported.service_tier, before.service_tier),
            fast=before.fast if reported.speed is None else reported.speed == "fast",
            inference_geo=word(reported.inference_geo) or before.inference_geo,
            extra=self._extra(reported.iterations)
            if is_given(reported.iterations)
            else before.extra,
            model=self._model,
        )
        self.input_reported = self.input_reported or reported.input_tokens is not None
        if reported.output_tokens is None:
            return False
        self.unreported.reset()
        return True

    def _extra(self, raw: msgspec.Raw) -> tuple[ExtraUsage, ...]:
        """Return the usage beside the message itself."""
        try:
            iterations = read_usage(_iterations, raw)
        except UNREADABLE:
            self.unreadable = True
            return ()
        return tuple(_extra_of(each) for each in iterations if each.type in _EXTRA)


def _newer(reported: int | None, before: int) -> int:
    return before if reported is None else reported


def _cache_writes(reported: _Tokens, before: Usage) -> tuple[int, int]:
    """Return the tokens written to the cache for five minutes and for an hour."""
    five, hour = before.cache_write_5m, before.cache_write_1h
    if reported.cache_creation_input_tokens is not None or reported.cache_creation is not None:
        written = reported.cache_creation
        total = reported.cache_creation_input_tokens or 0
        if written is None:  # the end of a stream only has the total
            hour = min(hour, total)
            five = total - hour
        else:
            hour = written.ephemeral_1h_input_tokens or 0
            five = max(written.ephemeral_5m_input_tokens or 0, total - hour)
    return five, hour


def _extra_of(iteration: _Iteration) -> ExtraUsage:
    five, hour = _cache_writes(iteration, Usage())
    usage = Usage(
        input=iteration.input_tokens or 0,
        cache_read=iteration.cache_read_input_tokens or 0,
        cache_write_5m=five,
        cache_write_1h=hour,
        output=iteration.output_tokens or 0,
    )
    return ExtraUsage(word(iteration.model), usage)
