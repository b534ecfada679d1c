"""A meter reads every byte of an answer, passes it on, and knows the usage that was reported.

It keeps only an unfinished line or an excerpt, so its memory is bounded whatever the answer's size.
"""

from collections.abc import Callable
from typing import Protocol

from gateway.metering.excerpt import Excerpt
from gateway.metering.reading import UNREADABLE, Reader
from gateway.metering.token_estimates import tokens_of
from gateway.metering.usage import Usage

# An answer or unfinished line up to this size is kept and read at once, which is fastest. An
# excerpt is taken of longer ones while they pass.
MAX_KEPT = 16 * 1024
# The longest event that can be hidden from the caller. Longer ones are passed on.
MAX_HELD_BACK = 64 * 1024
_BOM = b"\xef\xbb\xbf"


class Meter(Protocol):
    """What the proxy and the settler need of a meter."""

    hides_usage: bool  # it returns less than it is fed
    streamed: bool

    @property
    def finished(self) -> bool:
        """Whether the provider said that the answer is complete."""

    @property
    def complete(self) -> bool:
        """Whether the whole usage of the answer was reported, and can be read."""

    @property
    def failed(self) -> bool:
        """Whether the provider reported an error inside the answer."""

    @property
    def unreadable(self) -> bool:
        """Whether usage was reported that cannot be read."""

    @property
    def input_reported(self) -> bool:
        """Whether the input is among what was reported."""

    @property
    def unreported_output(self) -> int:
        """An estimate of the output tokens that passed and were not reported."""

    @property
    def tools_ran(self) -> bool:
        """Whether paid tools of the provider ran whose use was not reported."""

    def feed(self, chunk: bytes) -> bytes:
        """Read the next bytes of the answer; return those that may go to the caller now."""

    def end(self) -> bytes:
        """Note that the answer is over; return the bytes that were held back."""

    def usage(self) -> Usage | None:
        """Return the usage that the provider reported, or None if it reported no tokens."""

    def used_so_far(self) -> Usage:
        """Return the reported usage, and what else a broken answer shows."""


class _Metered:
    """What both kinds of meter share: their reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @property
    def finished(self) -> bool:
        return self._reader.finished

    @property
    def complete(self) -> bool:
        return self._reader.complete

    @property
    def failed(self) -> bool:
        return self._reader.failed

    @property
    def unreadable(self) -> bool:
        return self._reader.unreadable

    @property
    def input_reported(self) -> bool:
        return self._reader.input_reported

    @property
    def unreported_output(self) -> int:
        return self._reader.unreported.tokens

    @property
    def tools_ran(self) -> bool:
        return self._reader.tools_ran

    def usage(self) -> Usage | None:
        return self._reader.reported()

    def used_so_far(self) -> Usage:
        return self._reader.used_so_far()


class Document(_Metered):
    """The meter of a JSON answer."""

    hides_usage = False
    streamed = False

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self._chunks: list[bytes] = []
        self._size = 0
        self._excerpt: Excerpt | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Keep the chunk or add it to the excerpt; return it unchanged."""
        if self._excerpt is not None:
            self._excerpt.feed(chunk)
            return chunk
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_KEPT:
            self._take_excerpt()
        return chunk

    def end(self) -> bytes:
        """Read what was kept."""
        if not self._reader.finished and not self._read():
            self._reader.unreadable = True
        return b""

    def _take_excerpt(self) -> Excerpt:
        self._excerpt = self._reader.document_form.excerpt()
        for chunk in self._chunks:
            self._excerpt.feed(chunk)
        self._chunks.clear()
        return self._excerpt

    def _read(self) -> bool:
        excerpt = self._excerpt
        if excerpt is None:
            try:
                self._reader.document(b"".join(self._chunks))
            except UNREADABLE:
                excerpt = self._take_excerpt()
            else:
                return True
        return _read(self._reader.document, excerpt)


class Stream(_Metered):
    """The meter of server-sent events.

    Lines, fields and events are defined in
    https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. But here
    an event counts as soon as the JSON of its data is complete.
    """

    streamed = True
    _long_data: bool  # a long line is data; set as it begins

    def __init__(self, reader: Reader, *, hide_usage: bool) -> None:
        super().__init__(reader)
        self.hides_usage = hide_usage
        self._begun = False
        self._tail = b""  # the beginning of a line
        self._long = False  # within a long line, whose beginning was read already
        # The current event:
        self._name = b""
        self._has_data = False
        self._data: Excerpt | None = None  # its data, unless that is one whole line
        # The current event, if usage is hidden:
        self._only_usage = False
        self._held: list[bytes] = []
        self._held_size = 0
        self._is_shown = False  # its beginning was passed on, because it is long

    def feed(self, chunk: bytes) -> bytes:
        """Read a chunk; return what to pass on. If usage is hidden, events wait until complete."""
        if chunk.endswith(b"\n\n") and not (
            self._tail or self._long or self._held or self._is_shown
        ):  # most chunks end with an event
            hidden = self._lines(chunk.splitlines())
            return _without(hidden, chunk) if hidden and self.hides_usage else chunk
        pieces = self._pieces(chunk)
        if self.hides_usage:
            return b"".join(map(self._filtered, pieces))
        for piece in pieces:
            self._take(piece)
        return chunk

    def end(self) -> bytes:
        """Read the last line and event, which only the end of the answer completes."""
        tail, self._tail = self._tail, b""
        if self._long:
            self._long_line_ended()
        elif tail:
            self._lines([tail.rstrip(b"\r\n")])
        self._event_ended()
        self._reader.done()
        if not self.hides_usage or self._only_usage:
            return b""
        return b"".join(self._held) + tail

    @property
    def unreported_output(self) -> int:
        """Return the estimate, including the text of an event that broke off.

        That event may repeat earlier text, so the larger of both counts is returned.
        """
        broken_off, tail = self._data, self._tail
        if broken_off is None and tail.startswith(b"data:"):
            broken_off = self._reader.event_form.excerpt()
            broken_off.feed(tail[5:])
        tokens = self._reader.unreported.tokens
        return tokens if broken_off is None else max(tokens, tokens_of(broken_off.text))

    def _pieces(self, chunk: bytes) -> list[bytes]:
        """Return the complete lines, and what arrived of an incomplete long one."""
        if self._tail:
            chunk = self._tail + chunk
        # A carriage return at the very end may be the first half of a line break.
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r", 0, -1)) + 1
        pieces = chunk[:end].splitlines(keepends=True)
        self._tail = chunk[end:]
        if len(self._tail) > MAX_KEPT or (self._long and not end):
            ends_with_return = self._tail.endswith(b"\r")
            pieces.append(self._tail.removesuffix(b"\r"))
            self._tail = b"\r" if ends_with_return else b""
        return pieces

    def _take(self, piece: bytes) -> None:
        """Read a line, or a piece of a long one."""
        ended = piece.endswith((b"\n", b"\r"))
        if ended and not self._long:
            self._lines([piece.rstrip(b"\r\n")])
            return
        if not self._long:
            self._long = True
            piece = self._without_mark(piece)
            self._long_data = piece.startswith(b"data:")
            if self._long_data:
                self._continue_data()
                piece = piece[5:]
        if self._long_data and self._data is not None:
            self._data.feed(piece)
        if ended:
            self._long_line_ended()

    def _long_line_ended(self) -> None:
        self._long = False
        if self._long_data:
            self._read_data()

    def _lines(self, lines: list[bytes]) -> list[int]:
        """Read complete lines; return the numbers of those that only report usage."""
        if not self._begun:
            lines[0] = self._without_mark(lines[0])
        read = self._reader.event
        found = []
        for number, line in enumerate(lines):
            if not line:
                if self._data is not None or self._name == b"error":
                    self._event_ended()
                self._name = b""
                self._has_data = self._only_usage = False
            elif line[:5] == b"data:":
                data = line[5:]
                if self._data is None:
                    try:
                        if read(data, self._name):
                            self._only_usage = True
                    except UNREADABLE:
                        self._odd_data(data)
                    else:
                        self._has_data = True
                else:
                    self._odd_data(data)
                if self._only_usage:
                    found.append(number)
            elif line[:6] == b"event:":
                self._name = line[6:].strip()
        return found

    def _without_mark(self, line: bytes) -> bytes:
        if self._begun:
            return line
        self._begun = True
        return line.removeprefix(_BOM)

    def _odd_data(self, data: bytes) -> None:
        """Read data that isn't one event by itself: one of several lines, or no JSON object."""
        self._has_data = True
        if self._data is None:
            stripped = data.strip()
            if stripped == b"[DONE]":
                self._reader.done()
            if stripped in (b"[DONE]", b""):
                return
        self._continue_data().feed(data)
        self._read_data()

    def _continue_data(self) -> Excerpt:
        """Return the excerpt of the event's data, ready for its next line."""
        self._has_data = True
        if self._data is None:
            self._data = self._reader.event_form.excerpt()
        else:
            self._data.feed(b"\n")
        return self._data

    def _read_data(self) -> None:
        """Read the event's data if it is complete; otherwise more lines may follow."""
        if self._data is not None and _read(self._event, self._data):
            self._data = None

    def _event(self, data: bytes) -> None:
        self._only_usage = self._reader.event(data, self._name) or self._only_usage

    def _event_ended(self) -> None:
        if self._name == b"error" and self._has_data:  # whatever the data is
            self._reader.failed = True
        if self._data is not None:
            if not self._reader.finished and not self._reader.failed:
                self._reader.unreadable = True
            self._data = None

    def _filtered(self, piece: bytes) -> bytes:
        """Read a piece; return what may be passed on now."""
        if piece.startswith(b":") and not self._held and not self._long:
            self._take(piece)
            return piece  # a comment between events, such as a keep-alive
        ends_event = piece in (b"\n", b"\r\n", b"\r") and not self._long
        only_usage = self._only_usage
        self._take(piece)
        self._held.append(piece)
        self._held_size += len(piece)
        if not ends_event and self._held_size <= MAX_HELD_BACK:
            return b""
        shown = b"".join(self._held) if not only_usage or self._is_shown else b""
        self._is_shown = not ends_event  # the rest of a long event is shown too
        self._held.clear()
        if ends_event:
            self._held_size = 0
        return shown


def _without(numbers: list[int], chunk: bytes) -> bytes:
    """Return a chunk of complete events without those that contain these lines."""
    shown: list[bytes] = []
    event: list[bytes] = []
    hidden = False
    for number, line in enumerate(chunk.splitlines(keepends=True)):
        event.append(line)
        hidden = hidden or number in numbers
        if not line.strip(b"\r\n"):
            if not hidden:
                shown += event
            event.clear()
            hidden = False
    return b"".join(shown)


def _read(read: Callable[[bytes], None], excerpt: Excerpt) -> bool:
    """Read an excerpt; return whether it is complete and can be read."""
    data = excerpt.result()
    if data is None:
        return False
    try:
        read(data)
    except UNREADABLE:
        excerpt.reject()  # otherwise each following empty line would read it again
        return False
    return True
