"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat.

Usage is reported in the completion, or in a last chunk without choices. Some servers with this API
report it in every chunk, or in the one with the `finish_reason`.
"""

import msgspec
from msgspec.structs import replace

from gateway.metering.excerpt import Text
from gateway.metering.openai_tokens import InputDetails, OutputDetails, usage_of
from gateway.metering.reading import (
    NULL,
    UNREADABLE,
    Count,
    Form,
    Reader,
    is_error,
    is_given,
    read_usage,
    tier,
    word,
)
from gateway.metering.usage import Usage


class _Call(msgspec.Struct, gc=False):
    arguments: Text = None
    input: Text = None


class _ToolCall(msgspec.Struct, gc=False):
    function: _Call | None = None
    custom: _Call | None = None


class _Audio(msgspec.Struct, gc=False):
    transcript: Text = None


class _Said(msgspec.Struct, gc=False):
    content: Text = None
    refusal: Text = None
    reasoning_content: Text = None
    reasoning: Text = None
    tool_calls: list[_ToolCall | None] | None = None
    function_call: _Call | None = None
    audio: _Audio | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None


class _Completion(msgspec.Struct, gc=False):
    """A completion, or a chunk of one."""

    type: str | None = None
    object: str | None = None
    model: str | None = None
    service_tier: str | None = None
    choices: list[_Choice | None] | None = None
    usage: msgspec.Raw = NULL
    error: msgspec.Raw = NULL


class _Usage(msgspec.Struct):
    prompt_tokens: Count
    completion_tokens: Count
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None


_usage = msgspec.json.Decoder(_Usage)


class ChatReader(Reader):
    """Reads completions."""

    document_form = event_form = Form(_Completion)

    def __init__(self) -> None:
        super().__init__()
        self._model: str | None = None
        self._tier: str | None = None

    def document(self, data: bytes) -> None:
        """Read a completion, or an error."""
        self._take(self.document_form.read(data))
        self.done()

    def event(self, data: bytes, name: bytes) -> bool:
        """Read a chunk."""
        chunk: _Completion = self.event_form.read(data)
        if name == b"error":
            self.failed = True
        usage_reported = self._take(chunk)
        return usage_reported and not chunk.choices and not is_error(chunk.error)

    def done(self) -> None:
        """Take the usage reported last, if any, as final."""
        self.finished = True
        self.final = self.usage is not None

    def reported(self) -> Usage | None:
        """Return the reported usage with the latest tier and model of any chunk, or None."""
        return None if self.usage is None else self.used_so_far()

    def used_so_far(self) -> Usage:
        """Return the usage reported so far, with the latest tier and model of any chunk."""
        return replace(self.usage or Usage(), service_tier=self._tier, model=word(self._model))

    def _take(self, completion: _Completion) -> bool:
        """Take in a completion, or a chunk of one; return whether it reports usage."""
        if completion.model is not None:
            self._model = completion.model
        if completion.service_tier is not None:
            self._tier = tier(completion.service_tier, self._tier)
        ended = True
        for choice in completion.choices or ():
            if choice is not None:
                ended = ended and choice.finish_reason is not None
                said = choice.delta or choice.message
                if said is not None:
                    self._count(said)
        if is_error(completion.error) or "error" in (completion.type, completion.object):
            self.failed = True
        if not is_given(completion.usage):
            return False
        self._update(completion.usage, ended=ended)
        self.final = ended
        return True

    def _count(self, said: _Said) -> None:
        add = self.unreported.add
        if said.content:
            add(said.content)
        if said.refusal:
            add(said.refusal)
        thought = said.reasoning_content or said.reasoning
        if thought:
            add(thought)
        if said.function_call is not None:
            add(said.function_call.arguments)
        if said.audio is not None:
            add(said.audio.transcript)
        for call in said.tool_calls or ():
            for each in (call.function, call.custom) if call is not None else ():
                if each is not None:
                    add(each.arguments or each.input)

    def _update(self, raw: msgspec.Raw, *, ended: bool) -> None:
        """Take in reported usage, or note that it cannot be read."""
        try:
            reported = read_usage(_usage, raw)
        except UNREADABLE:
            self.unreadable = True
            return
        self.unreadable = False
        self.usage = usage_of(
            reported.prompt_tokens,
            reported.completion_tokens,
            reported.prompt_tokens_details,
            reported.completion_tokens_details,
        )
        self.input_reported = True
        if ended or reported.completion_tokens:  # zeros before the end don't cover the text so far
            self.unreported.reset()
