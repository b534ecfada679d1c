"""OpenAI's responses: https://platform.openai.com/docs/api-reference/responses-streaming.

Usage is reported in the response, which the last event of a stream repeats. Tools that the provider
runs are items of the output. Of web searches, only the action `search` is billed:
https://platform.openai.com/docs/guides/tools-web-search#output-and-citations.
"""

from collections.abc import Iterable
from typing import Any

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
from gateway.metering.token_estimates import size_of
from gateway.metering.usage import Usage

_LAST = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)
_ENDED = frozenset({"completed", "incomplete", "failed", "cancelled"})
# Items of the output that cost something, and the count of `Usage` that they add to.
_BILLED = {
    "web_search_call": "web_searches",
    "file_search_call": "file_searches",
    "code_interpreter_call": "code_executions",
    "image_generation_call": "image_generations",
}
# Items tracked in one response. Beyond these, every event counts as a new item.
MAX_ITEMS = 10_000


class _Action(msgspec.Struct, gc=False):
    type: str | None = None


class _Part(msgspec.Struct, gc=False):
    text: Text = None
    refusal: Text = None
    transcript: Text = None


class _Item(msgspec.Struct, gc=False):
    type: str | None = None
    action: _Action | None = None
    content: list[_Part | None] | None = None
    summary: list[_Part | None] | None = None
    arguments: Text = None
    input: Text = None
    code: Text = None


class _Response(msgspec.Struct, gc=False):
    type: str | None = None
    model: str | None = None
    status: str | None = None
    service_tier: str | None = None
    output: list[_Item | None] | None = None
    usage: msgspec.Raw = NULL
    error: msgspec.Raw = NULL


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    delta: Text = None
    output_index: int | None = None
    item: _Item | None = None
    response: _Response | None = None
    error: msgspec.Raw = NULL


class _Usage(msgspec.Struct):
    input_tokens: Count
    output_tokens: Count
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


_usage = msgspec.json.Decoder(_Usage)


class ResponsesReader(Reader):
    """Reads responses."""

    document_form = Form(_Response)
    event_form = Form(_Event)

    def __init__(self) -> None:
        super().__init__()
        self._model: str | None = None
        self._tier: str | None = None
        self._billed: dict[int, str] = {}  # the count of `Usage`, by index in the output
        self._billed_further: dict[str, int] = {}  # items that are not tracked, by count of `Usage`
        self._counted: dict[int, int] = {}  # bytes that came in deltas, by index in the output

    def document(self, data: bytes) -> None:
        """Read a response, or an error."""
        response: _Response = self.document_form.read(data)
        self.failed = response.type == "error"
        self._take(response)
        if not self.final:
            for item in response.output or ():
                if item is not None:
                    self.unreported.add_bytes(_size(item))
        self.finished = True

    def event(self, data: bytes, name: bytes) -> bool:
        """Read an event."""
        event: _Event = self.event_form.read(data)
        kind = event.type or name.decode("latin-1")
        if event.delta is not None:
            if kind != "response.audio.delta":  # audio is not text
                index, counted = event.output_index or 0, self._counted
                counted[index] = counted.get(index, 0) + self.unreported.add(event.delta)
                if len(counted) > MAX_ITEMS:
                    counted.clear()
            return False
        if event.item is not None:
            self._see(event.output_index, event.item, ended=kind == "response.output_item.done")
        elif event.response is not None:
            last = kind in _LAST or event.response.status in _ENDED
            self._take(event.response, last=last)
            self.finished = self.finished or last
        if kind == "error" or kind == "response.failed" or is_error(event.error):
            self.failed = True
        return False

    def done(self) -> None:
        """Do nothing: this API has an event for its end."""

    @property
    def tools_ran(self) -> bool:
        """Whether items that cost something were seen, and no usage."""
        return self.usage is None and bool(self._tools(None))

    def reported(self) -> Usage | None:
        """Return the reported usage with the latest tier and model of any event, or None."""
        if self.usage is None:
            return None
        return replace(self.usage, service_tier=self._tier, model=self._model)

    def used_so_far(self) -> Usage:
        """Return the usage reported so far, and the tools that ran."""
        reported, seen = self.reported(), self._tools(None)
        if reported is None:
            return Usage(service_tier=self._tier, model=self._model, **seen)
        return replace(
            reported, **{name: max(seen[name], getattr(reported, name)) for name in seen}
        )

    def _see(self, index: int | None, item: _Item, *, ended: bool) -> None:
        """Record an item that costs something, and count text that came without deltas."""
        if ended:
            counted = self._counted.pop(index or 0, 0)
            self.unreported.add_bytes(max(0, _size(item) - counted))
        self._bill(index, item)

    def _bill(self, index: int | None, item: _Item) -> None:
        """Record an item that costs something."""
        if item.type in _BILLED:
            name, further = _billed_as(item) or "", self._billed_further
            if index is None or (len(self._billed) >= MAX_ITEMS and index not in self._billed):
                further[name] = further.get(name, 0) + 1
            else:
                self._billed[index] = name

    def _take(self, response: _Response, *, last: bool = True) -> None:
        self._model = word(response.model) or self._model
        self._tier = tier(response.service_tier, self._tier)
        if response.status == "failed" or is_error(response.error):
            self.failed = True
        for index, item in enumerate(response.output or ()):
            if item is not None:
                self._bill(index, item)
        if is_given(response.usage):
            self.final = self._update(response, last=last) and last

    def _tools(self, output: Iterable[_Item | None] | None) -> dict[str, Any]:
        """Return how often each tool ran, by the output or else by the events so far."""
        counts = {} if output else dict(self._billed_further)
        for name in map(_billed_as, filter(None, output)) if output else self._billed.values():
            if name:
                counts[name] = counts.get(name, 0) + 1
        counts.pop("", None)
        return counts

    def _update(self, response: _Response, *, last: bool) -> bool:
        """Take in reported usage; return whether it can be read."""
        try:
            reported = read_usage(_usage, response.usage)
        except UNREADABLE:
            self.unreadable = True
            return False
        self.unreadable = False
        usage = usage_of(
            reported.input_tokens,
            reported.output_tokens,
            reported.input_tokens_details,
            reported.output_tokens_details,
        )
        self.usage = replace(usage, **self._tools(response.output))
        self.input_reported = True
        if last or reported.output_tokens:  # zeros before the end don't cover the text so far
            self.unreported.reset()
        return True


def _billed_as(item: _Item) -> str | None:
    """Return the count of `Usage` that an item adds to, or None if it is not billed."""
    if item.type == "web_search_call":
        action = item.action.type if item.action is not None else None
        return "web_searches" if action in (None, "search") else None
    return _BILLED.get(item.type or "")


def _size(item: _Item) -> int:
    """Return how many bytes of text the model wrote in an item."""
    if item.type is not None and item.type.endswith("_output"):  # written by a tool
        return 0
    parts = [*(item.content or ()), *(item.summary or ())]
    texts = [each for part in parts if part for each in (part.text, part.refusal, part.transcript)]
    return sum(map(size_of, (*texts, item.arguments, item.input, item.code)))
