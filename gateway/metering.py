"""Reading the usage of a call from the provider's answer while it passes by.

A meter is fed every chunk of the answer. Only lines in which `"usage"` (or another tell-tale) is
found are parsed, so that a long stream costs little; what is kept of a stream is one unfinished
line.
"""

from typing import Protocol

import msgspec

from gateway.prices import Apart, Usage

MAX_LINE = 1 << 20
MAX_DOCUMENT = 16 << 20
MAX_WORD = 64
BYTES_PER_TOKEN = 3  # of text; providers say 4 on average, so this estimates a little too much

Count = int | None
_ABSENT = msgspec.Raw(b"null")


class _CacheCreation(msgspec.Struct, frozen=True):
    ephemeral_5m_input_tokens: Count = 0
    ephemeral_1h_input_tokens: Count = 0


class _ServerTools(msgspec.Struct, frozen=True):
    web_search_requests: Count = 0


class _MessagesTokens(msgspec.Struct, frozen=True):
    input_tokens: Count = None
    output_tokens: Count = None
    cache_creation_input_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation: _CacheCreation | None = None


class _Iteration(_MessagesTokens, frozen=True):
    type: str | None = None
    model: str | None = None


class _MessagesUsage(_MessagesTokens, frozen=True):
    iterations: msgspec.Raw = _ABSENT
    server_tool_use: _ServerTools | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None


class _Message(msgspec.Struct, frozen=True):
    usage: _MessagesUsage | None = None
    model: str | None = None


class _MessagesEvent(msgspec.Struct, frozen=True):
    type: str | None = None
    message: _Message | None = None
    usage: _MessagesUsage | None = None
    model: str | None = None


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: Count = 0
    cache_write_tokens: Count = 0


class _ChatUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _ChatEvent(msgspec.Struct, frozen=True):
    usage: _ChatUsage | None = None
    service_tier: str | None = None
    model: str | None = None
    choices: list[msgspec.Raw] | None = None


class _ResponsesUsage(msgspec.Struct, frozen=True):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _Details | None = None


class _OutputItem(msgspec.Struct, frozen=True):
    type: str | None = None


class _Response(msgspec.Struct, frozen=True):
    usage: _ResponsesUsage | None = None
    service_tier: str | None = None
    model: str | None = None
    output: list[_OutputItem] | None = None


class _ResponsesEvent(msgspec.Struct, frozen=True):
    type: str | None = None
    response: _Response | None = None


# What these used is not among the tokens of the message, says the provider's SDK of the first, and
# https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool of the second.
_APART = frozenset({"compaction", "advisor_message"})
_iterations = msgspec.json.Decoder(list[_Iteration])
_messages_event = msgspec.json.Decoder(_MessagesEvent)
_chat_event = msgspec.json.Decoder(_ChatEvent)
_responses_event = msgspec.json.Decoder(_ResponsesEvent)
_response = msgspec.json.Decoder(_Response)


class Meter(Protocol):
    """What the proxy asks of a meter."""

    hides_usage: bool  # what it returns is not what it was fed

    @property
    def finished(self) -> bool:
        """Whether the provider said that the answer is complete."""

    @property
    def failed(self) -> bool:
        """Whether the provider reported an error inside the answer."""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the answer; return those that may go on to the caller now."""

    def end(self) -> bytes:
        """Take note that no more bytes come; return those that were held back."""

    def usage(self) -> Usage | None:
        """Return what the provider reported so far."""

    def output_estimate(self) -> int:
        """Estimate the output tokens that passed, for an answer that never came to its end."""


def meter_for(kind: str, *, stream: bool, hide_usage: bool) -> Meter:
    """Return a meter for one answer of an API; `hide_usage` takes the usage chunk out of it."""
    readers: dict[str, type[_Reader]] = {
        "messages": _Messages,
        "chat": _Chat,
        "responses": _Responses,
    }
    reader = readers[kind]()
    if stream:
        return _Stream(reader, hide_usage=hide_usage)
    return _Document(reader)


class _Reader(Protocol):
    """How one API tells its usage, in a document and in the lines of a stream."""

    usage: Usage | None
    finished: bool
    failed: bool
    frame: int  # bytes of a streamed piece of text that are not text

    def interesting(self, lines: bytes) -> bool:
        """Tell whether these lines are worth parsing."""

    def document(self, body: bytes) -> None:
        """Read a whole answer."""

    def line(self, data: bytes) -> bool:
        """Read the data of one line; True when the line is only about usage."""


class _Document:
    """The meter of a JSON answer: it keeps a copy, up to a limit, and parses it at the end."""

    hides_usage = False

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader
        self._chunks: list[bytes] = []
        self._size = 0
        self.finished = False
        self.failed = False

    def feed(self, chunk: bytes) -> bytes:
        self._size += len(chunk)
        if self._size <= MAX_DOCUMENT:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()
        return chunk

    def end(self) -> bytes:
        if self._chunks and not self.finished:
            try:
                self._reader.document(b"".join(self._chunks))
                self.finished = True
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.failed = True
        return b""

    def usage(self) -> Usage | None:
        return self._reader.usage

    def output_estimate(self) -> int:
        return self._size // BYTES_PER_TOKEN


class _Stream:
    """The meter of server-sent events, read line by line."""

    def __init__(self, reader: _Reader, *, hide_usage: bool) -> None:
        self._reader = reader
        self.hides_usage = hide_usage
        self._tail: list[bytes] = []
        self._tail_size = 0
        self._skip_blank = False
        self._size = 0
        self._events = 0
        self._misread = False  # something that told usage

    @property
    def finished(self) -> bool:
        return self._reader.finished and not self._misread

    @property
    def failed(self) -> bool:
        return self._reader.failed

    def usage(self) -> Usage | None:
        return self._reader.usage

    def output_estimate(self) -> int:
        text = self._size - self._events * self._reader.frame
        return max(self._events, text // BYTES_PER_TOKEN)

    def feed(self, chunk: bytes) -> bytes:
        self._size += len(chunk)
        self._events += chunk.count(b"data:")
        end = chunk.rfind(b"\n") + 1
        if not end:
            return self._keep(chunk)
        if self._tail:
            complete = b"".join(self._tail) + chunk[:end]
            self._tail.clear()
            self._tail_size = 0
        else:
            complete = chunk[:end]
        opening = self._reader.usage is None
        shown = self._lines(complete)
        rest = chunk[end:]
        if opening and self._reader.usage is not None:  # what told the input is no output
            behind = complete[complete.find(b"\n", complete.find(b'"usage"')) :]
            self._size = len(behind) + len(rest)
            self._events = behind.count(b"data:") + rest.count(b"data:")
        if not self.hides_usage:
            self._keep(rest)
            return chunk
        return shown + self._keep(rest)

    def end(self) -> bytes:
        rest = b"".join(self._tail)
        self._tail.clear()
        if rest:
            rest = self._lines(rest)
        return rest if self.hides_usage else b""

    def _keep(self, rest: bytes) -> bytes:
        """Remember an unfinished line; return what of it may be shown already."""
        if not rest:
            return b""
        self._tail.append(rest)
        self._tail_size += len(rest)
        if self._tail_size > MAX_LINE:  # nothing that tells usage is that long
            shown = b"".join(self._tail) if self.hides_usage else rest
            self._tail.clear()
            self._tail_size = 0
            return shown
        return b"" if self.hides_usage else rest

    def _lines(self, lines: bytes) -> bytes:
        """Read whole lines; return those to show."""
        if not self.hides_usage:
            if self._reader.interesting(lines):
                for line in lines.split(b"\n"):
                    self._line(line)
            return lines
        shown = []
        for line in lines.splitlines(keepends=True):
            if self._line(line):
                self._skip_blank = True
            elif self._skip_blank and not line.strip():
                self._skip_blank = False
            else:
                self._skip_blank = False
                shown.append(line)
        return b"".join(shown)

    def _line(self, line: bytes) -> bool:
        if not line.startswith(b"data:"):
            return False
        try:
            return self._reader.line(line[5:].strip())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._misread = self._misread or b'"usage"' in line
            return False


def _tokens(value: int | None) -> int:
    """A count from outside: never negative, never absurd."""
    return min(max(value or 0, 0), 1 << 40)


def _word(told: str | None) -> str | None:
    """A name from outside, which goes into the event: none is that long."""
    return told if told is not None and len(told) <= MAX_WORD else None


def _newer(told: int | None, before: int) -> int:
    return before if told is None else _tokens(told)


def _cache_writes(told: _MessagesTokens, before: Usage) -> tuple[int, int]:
    """Return the tokens written to the cache for five minutes and for an hour."""
    five, hour = before.cache_write_5m, before.cache_write_1h
    if told.cache_creation_input_tokens is not None or told.cache_creation is not None:
        written = told.cache_creation
        total = _tokens(told.cache_creation_input_tokens)
        if written is None:  # the end of a stream has the total alone
            hour = min(hour, total)
            five = total - hour
        else:
            hour = _tokens(written.ephemeral_1h_input_tokens)
            five = max(_tokens(written.ephemeral_5m_input_tokens), total - hour)
    return five, hour


def _apart(told: msgspec.Raw) -> tuple[Apart, ...]:
    """Return what was used beside the message itself."""
    try:
        iterations = _iterations.decode(told)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    found = []
    for each in iterations:
        if each.type in _APART:
            five, hour = _cache_writes(each, Usage())
            usage = Usage(
                input=_tokens(each.input_tokens),
                cache_read=_tokens(each.cache_read_input_tokens),
                cache_write_5m=five,
                cache_write_1h=hour,
                output=_tokens(each.output_tokens),
            )
            found.append(Apart(_word(each.model), usage))
    return tuple(found)


class _Messages:
    """Anthropic: usage in the message, in `message_start` and, cumulative, in `message_delta`."""

    frame = 120

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.finished = False
        self.failed = False

    def interesting(self, lines: bytes) -> bool:
        return b'"usage"' in lines or b"message_stop" in lines or b'"error"' in lines

    def document(self, body: bytes) -> None:
        event = _messages_event.decode(body)
        self._update(event.usage, event.model)

    def line(self, data: bytes) -> bool:
        event = _messages_event.decode(data)
        if event.type == "message_start" and event.message is not None:
            self._update(event.message.usage, event.message.model)
        elif event.type == "message_delta":
            self._update(event.usage)
        elif event.type == "message_stop":
            self.finished = True
        elif event.type == "error":
            self.failed = True
        return False

    def _update(self, told: _MessagesUsage | None, model: str | None = None) -> None:
        if told is None:
            return
        before = self.usage or Usage()
        five, hour = _cache_writes(told, before)
        searches = before.web_searches
        if told.server_tool_use is not None:
            searches = _tokens(told.server_tool_use.web_search_requests)
        self.usage = Usage(
            input=_newer(told.input_tokens, before.input),
            cache_read=_newer(told.cache_read_input_tokens, before.cache_read),
            cache_write_5m=five,
            cache_write_1h=hour,
            output=_newer(told.output_tokens, before.output),
            web_searches=searches,
            service_tier=_word(told.service_tier) or before.service_tier,
            fast=before.fast if told.speed is None else told.speed == "fast",
            inference_geo=told.inference_geo or before.inference_geo,
            model=_word(model) or before.model,
            apart=before.apart if bytes(told.iterations) == b"null" else _apart(told.iterations),
        )


class _Chat:
    """OpenAI chat completions: usage in the completion, or in a last chunk without choices."""

    frame = 200

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.finished = False
        self.failed = False

    def interesting(self, lines: bytes) -> bool:
        return b'"usage"' in lines or b"[DONE]" in lines or b'"error"' in lines

    def document(self, body: bytes) -> None:
        self._update(_chat_event.decode(body))

    def line(self, data: bytes) -> bool:
        if data == b"[DONE]":
            self.finished = True
            return False
        if b'"usage"' not in data:
            self.failed = self.failed or data.startswith(b'{"error"')
            return False
        event = _chat_event.decode(data)
        self._update(event)
        return event.usage is not None and not event.choices

    def _update(self, event: _ChatEvent) -> None:
        told = event.usage
        if told is None:
            return
        details = told.prompt_tokens_details or _Details()
        everything = _tokens(told.prompt_tokens)
        cached = min(_tokens(details.cached_tokens), everything)
        written = min(_tokens(details.cache_write_tokens), everything - cached)
        self.usage = Usage(
            input=everything - cached - written,
            cache_read=cached,
            cache_write_5m=written,
            output=_tokens(told.completion_tokens),
            service_tier=_word(event.service_tier),
            model=_word(event.model),
        )


class _Responses:
    """OpenAI responses: usage in the response, which the last event of a stream repeats."""

    frame = 220

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.finished = False
        self.failed = False

    def interesting(self, lines: bytes) -> bool:
        return (
            b"response.completed" in lines
            or b"response.incomplete" in lines
            or (b"response.failed" in lines or b'"error"' in lines)
        )

    def document(self, body: bytes) -> None:
        self._update(_response.decode(body))

    def line(self, data: bytes) -> bool:
        event = _responses_event.decode(data)
        if event.type in ("response.completed", "response.incomplete", "response.failed"):
            self.finished = True
            self.failed = event.type == "response.failed"
            if event.response is not None:
                self._update(event.response)
        elif event.type == "error":
            self.failed = True
        return False

    def _update(self, told: _Response) -> None:
        if told.usage is None:
            return
        details = told.usage.input_tokens_details or _Details()
        everything = _tokens(told.usage.input_tokens)
        cached = min(_tokens(details.cached_tokens), everything)
        written = min(_tokens(details.cache_write_tokens), everything - cached)
        kinds = [item.type for item in told.output or ()]
        self.usage = Usage(
            input=everything - cached - written,
            cache_read=cached,
            cache_write_5m=written,
            output=_tokens(told.usage.output_tokens),
            web_searches=kinds.count("web_search_call"),
            file_searches=kinds.count("file_search_call"),
            service_tier=_word(told.service_tier),
            model=_word(told.model),
        )
