"""What the readers of all APIs share: JSON of any size, and counts in any form."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from gateway.metering.excerpt import MAX_WORD, Excerpt, shape_of
from gateway.metering.token_estimates import UnreportedText
from gateway.metering.usage import Usage

NULL = msgspec.Raw(b"null")
# Whole, not negative, and small enough for exact sums. Any other count is unreadable, which is not
# the same as zero.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
MaybeCount = Count | None
_NO_ERROR = (b"null", b"{}", b'""', b"false")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
S = TypeVar("S")
T = TypeVar("T", bound=msgspec.Struct)


class Form(Generic[T]):
    """A kind of JSON object that is read into a struct.

    `read` takes a whole object, and raises one of `UNREADABLE` if it cannot be read.
    """

    def __init__(self, struct: type[T]) -> None:
        self.read: Callable[[bytes], T] = msgspec.json.Decoder(struct).decode
        self._shape = shape_of(struct)

    def excerpt(self) -> Excerpt:
        """Return an empty excerpt, to read an object that comes in pieces."""
        return Excerpt(self._shape)


class Reader(ABC):
    """How one API reports usage, in a document and in the events of a stream.

    - `usage`: what was reported so far.
    - `input_reported`: `usage` includes the input.
    - `finished`: the provider said that the answer is complete.
    - `final`: the usage reported last covers the whole answer.
    - `failed`: the provider reported an error instead of the rest.
    - `unreadable`: the usage reported last cannot be read.
    """

    document_form: Form[Any]
    event_form: Form[Any]

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.input_reported = False
        self.finished = False
        self.final = False
        self.failed = False
        self.unreadable = False
        self.unreported = UnreportedText()

    @property
    def complete(self) -> bool:
        """Whether the whole usage of the answer was reported."""
        everything = self.usage is not None and self.input_reported and self.final
        return everything and not self.unreadable and not self.unreported.tokens

    @property
    def tools_ran(self) -> bool:
        """Whether paid tools of the provider ran whose use was not reported."""
        return False

    def reported(self) -> Usage | None:
        """Return the reported usage, or None if no tokens were reported."""
        return self.usage

    @abstractmethod
    def document(self, data: bytes) -> None:
        """Read a whole answer, or its excerpt. Raises one of `UNREADABLE`."""

    @abstractmethod
    def event(self, data: bytes, name: bytes) -> bool:
        """Read an event, or its excerpt; return whether it only reports usage.

        Raises one of `UNREADABLE`; nothing has changed then.
        """

    @abstractmethod
    def used_so_far(self) -> Usage:
        """Return the reported usage, and what was seen but is not reported yet."""

    @abstractmethod
    def done(self) -> None:
        """Record the end of a stream, with or without `[DONE]`."""


def read_usage(decoder: msgspec.json.Decoder[S], raw: msgspec.Raw) -> S:
    """Return decoded usage. Numbers may be written as 1000.0 or 1e3. Raises one of `UNREADABLE`."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        try:
            numbers = json.loads(bytes(raw), parse_float=_whole)
        except ValueError as error:  # such as a number with too many digits
            raise msgspec.DecodeError(str(error)) from None
        return msgspec.convert(numbers, decoder.type)


def _whole(number: str) -> int | float:
    value = float(number)
    return int(value) if value.is_integer() else value


def is_error(raw: msgspec.Raw) -> bool:
    """Return whether an `error` member describes an error."""
    return raw is not NULL and bytes(raw) not in _NO_ERROR


def is_given(raw: msgspec.Raw) -> bool:
    """Return whether a member exists and is not null."""
    return raw is not NULL and bytes(raw) != b"null"


def word(reported: str | None) -> str | None:
    """Return a reported name, or None if it is too long for the event."""
    return reported if reported is not None and len(reported) <= MAX_WORD else None


def tier(reported: str | None, before: str | None) -> str | None:
    """Return the tier reported last, ignoring "auto", which is only what was asked for."""
    reported = word(reported)
    return before if reported is None or reported == "auto" else reported
