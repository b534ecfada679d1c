"""Taking an excerpt of a JSON value of any size while its bytes pass by.

An excerpt has only the members that a shape names, and only the length of their texts. So the
excerpt of thirty megabytes is as small as that of a hundred bytes. The value is really parsed: text
that looks like a member, or a member with the same name elsewhere, is not mistaken for it. In parts
that are left out, the parser only looks for the end and ignores syntax errors.

Nothing here recurses, so nesting of any depth costs one number. Why this is not a library:
`docs/decisions/0022-usage-is-read-from-an-excerpt-of-the-answer.md`.
"""

import re
from enum import Enum, auto
from typing import Any

import msgspec
import msgspec.inspect

# Longer values become `TOO_LONG`: reported, but not readable.
MAX_VALUE = 1024 * 1024
MAX_EXCERPT = 2 * MAX_VALUE
MAX_WORD = 64  # characters of a reported name, such as a tier; longer names are ignored
MAX_KEY = 256  # bytes; every name in a shape is shorter, even if all of it is escaped
TOO_LONG = b'"' + b"too long " * 8 + b'"'

Shape = Any  # a Leaf, {name: Shape}, or [Shape]


class Leaf(Enum):
    """How a value is kept."""

    WHOLE = auto()  # as it is
    WORD = auto()  # a short string; anything else is null
    NUMBER = auto()  # a whole number; anything else is null
    TEXT = auto()  # a string whose size is kept; anything else is null


Text = str | int | None
"""A text, or its size in bytes of UTF-8."""


def shape_of(struct: type[msgspec.Struct]) -> Shape:
    """Return the shape of a struct. Its `Raw`, str, int and `Text` fields are the leaves."""
    return _shape(msgspec.inspect.type_info(struct))


def _shape(type_info: msgspec.inspect.Type) -> Shape:
    if isinstance(type_info, msgspec.inspect.UnionType):
        parts = [each for each in type_info.types if not isinstance(each, msgspec.inspect.NoneType)]
        part, *others = parts
        return Leaf.TEXT if others else _shape(part)
    if isinstance(type_info, msgspec.inspect.StructType):
        return {field.encode_name: _shape(field.type) for field in type_info.fields}
    if isinstance(type_info, msgspec.inspect.ListType):
        return [_shape(type_info.item_type)]
    if isinstance(type_info, msgspec.inspect.StrType):
        return Leaf.WORD
    return Leaf.NUMBER if isinstance(type_info, msgspec.inspect.IntType) else Leaf.WHOLE


class _State(Enum):
    """What is expected next, or inside which long value the last piece ended."""

    VALUE = auto()
    ELEMENT_OR_END = auto()
    KEY_OR_END = auto()
    KEY = auto()
    COLON = auto()
    NEXT = auto()
    END = auto()
    IN_KEY = auto()
    IN_STRING = auto()
    IN_SCALAR = auto()
    IN_CONTAINER = auto()
    IN_CONTAINERS_STRING = auto()


_SPACE = re.compile(rb"[ \t\r\n]*+")
_SPACE_AND_BOM = re.compile(rb"[ \t\r\n\xef\xbb\xbf]*+")
_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_ESCAPE = re.compile(rb"\\.?", re.DOTALL)
_SCALAR = re.compile(rb'[^ \t\r\n,:"{}\[\]]*+')
# The longest part of a container in which brackets are balanced, to a nesting depth of two. It is
# skipped in one step.
_PLAIN = rb'[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+"'
_PAIR = rb"%b|\[(?:%b)*+\]|\{(?:%b)*+\}" % (_PLAIN, _PLAIN, _PLAIN)
_RUN = re.compile(rb"(?:%b|\[(?:%b)*+\]|\{(?:%b)*+\})*+" % (_PLAIN, _PAIR, _PAIR), re.DOTALL)
_OPENING = re.compile(rb"[{\[]++")
_CLOSING = re.compile(rb"[}\]]++")
_WHOLE_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]{0,18})")
_QUOTE, _BACKSLASH = b'"\\'
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b"{}[]"
_COLON, _COMMA = b":,"


class Excerpt:
    """The excerpt of one object."""

    # Set as a value begins:
    _size: int  # of the text, or of the value so far
    _keep_limit: int  # a longer value is not kept
    _depth: int  # within a container that is kept whole or left out

    def __init__(self, shape: Shape) -> None:
        self._out = bytearray()
        self._state = _State.VALUE
        self._containers: list[tuple[bool, Shape]] = []  # (is an object, shape)
        self._shape = shape  # of the next value; None if it is left out
        self._escaped = False  # the last byte of a string was a backslash
        self._kept = bytearray()
        self.text = 0  # bytes of all texts, including an unfinished one
        self._begun = False
        self._malformed = False

    def result(self) -> bytes | None:
        """Return the excerpt as JSON, or None if the object is not complete or malformed."""
        if self._state is not _State.END or self._malformed or len(self._out) > MAX_EXCERPT:
            return None
        return bytes(self._out)

    def reject(self) -> None:
        """Discard the result, because it cannot be read."""
        self._malformed = True

    def feed(self, piece: bytes) -> None:
        """Parse the next bytes."""
        at, end = 0, len(piece)
        while at < end and not self._malformed:
            match self._state:
                case _State.IN_CONTAINER:
                    at = self._container(piece, at)
                case _State.IN_KEY | _State.IN_STRING | _State.IN_CONTAINERS_STRING:
                    at = self._string(piece, at)
                case _State.IN_SCALAR:
                    at = self._scalar(piece, at)
                case _:
                    at = self._token(piece, at)

    # --- values that may be long -----------------------------------------------------------------

    def _string(self, piece: bytes, at: int) -> int:
        """Continue in a string; return where it or the piece ends."""
        end = at
        continued = self._escaped  # the first byte ends an escape that began in the last piece
        if continued:
            self._escaped = False
            end += 1
        end = _STRING.match(piece, end).end()  # type: ignore[union-attr]
        ended = end < len(piece) and piece[end] == _QUOTE
        if not ended and end < len(piece):  # a backslash at the end of the piece
            self._escaped = True
            end += 1
        if self._state is _State.IN_CONTAINERS_STRING:
            self._keep(piece, at, end + ended)
            if ended:
                self._state = _State.IN_CONTAINER
            return end + ended
        if self._shape is Leaf.TEXT and self._state is _State.IN_STRING:
            part = piece[at:end]
            size = len(part)
            if continued and part.startswith(b"u"):
                size -= 2
            if b"\\" in part:
                escapes = _ESCAPE.findall(part, continued)
                size -= len(escapes) + 2 * escapes.count(b"\\u")
            self._size += size
            self.text += size
        else:
            self._keep(piece, at, end)
        if ended:
            self._string_ended()
            return end + 1
        return end

    def _string_ended(self) -> None:
        if self._state is _State.IN_KEY:
            name = _decoded(b'"%b"' % bytes(self._kept)) if self._size <= MAX_KEY else None
            shape = self._containers[-1][1]
            self._shape = shape.get(name) if name is not None else None
            if self._shape is not None:
                self._write(msgspec.json.encode(name) + b":")
            self._state = _State.COLON
            return
        if self._shape is Leaf.TEXT:
            self._write(b"%d" % self._size)
        elif self._shape is Leaf.WORD:
            word = _decoded(b'"%b"' % bytes(self._kept)) if self._size <= self._keep_limit else None
            self._write(msgspec.json.encode(word and word[: MAX_WORD + 1]))
        elif self._shape is Leaf.WHOLE:
            self._write(b'"%b"' % bytes(self._kept) if self._size <= MAX_VALUE else TOO_LONG)
        elif self._shape is not None:
            self._write(b"null")
        self._state = _State.NEXT

    def _scalar(self, piece: bytes, at: int) -> int:
        """Continue in a number or a literal; return where it or the piece ends."""
        end = _SCALAR.match(piece, at).end()  # type: ignore[union-attr]
        self._keep(piece, at, end)
        if end < len(piece):
            if self._shape is Leaf.WHOLE:
                self._write(bytes(self._kept) if self._size <= MAX_WORD else TOO_LONG)
            elif self._shape is Leaf.NUMBER and _WHOLE_NUMBER.fullmatch(self._kept):
                self._write(bytes(self._kept))
            elif self._shape is not None:
                self._write(b"null")
            self._state = _State.NEXT
        return end

    def _container(self, piece: bytes, at: int) -> int:
        """Continue in an object or array that is kept whole or left out; return where it ends."""
        start, end = at, len(piece)
        while self._depth:
            at = _RUN.match(piece, at).end()  # type: ignore[union-attr]
            if at == end:
                break
            if piece[at] == _QUOTE:  # a string that does not end in this piece
                self._keep(piece, start, at + 1)
                self._state = _State.IN_CONTAINERS_STRING
                return at + 1
            if opening := _OPENING.match(piece, at):
                self._depth += opening.end() - at
                at = opening.end()
            else:
                closing: re.Match[bytes] = _CLOSING.match(piece, at)  # type: ignore[assignment]
                closed = min(closing.end() - at, self._depth)
                self._depth -= closed
                at += closed
        self._keep(piece, start, at)
        if not self._depth:
            if self._shape is Leaf.WHOLE:
                self._write(bytes(self._kept) if self._size <= MAX_VALUE else TOO_LONG)
            self._state = _State.NEXT
        return at

    def _keep(self, piece: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size <= self._keep_limit:
            self._kept += piece[start:end]

    # --- the tokens between ----------------------------------------------------------------------

    def _token(self, piece: bytes, at: int) -> int:
        """Read one token outside long values; return where it ends."""
        space = _SPACE if self._begun else _SPACE_AND_BOM
        at = space.match(piece, at).end()  # type: ignore[union-attr]
        if at == len(piece):
            return at
        self._begun = True
        byte = piece[at]
        match self._state:
            case _State.KEY_OR_END if byte == _CLOSE_OBJECT:
                self._close()
            case _State.KEY | _State.KEY_OR_END if byte == _QUOTE:
                self._begin(_State.IN_KEY, MAX_KEY)
            case _State.COLON if byte == _COLON:
                self._state = _State.VALUE
            case _State.NEXT if byte == _COMMA and self._containers:
                is_object, shape = self._containers[-1]
                self._state = _State.KEY if is_object else _State.VALUE
                self._shape = shape
            case _State.NEXT if self._containers and byte == (
                _CLOSE_OBJECT if self._containers[-1][0] else _CLOSE_ARRAY
            ):
                self._close()
            case _State.ELEMENT_OR_END if byte == _CLOSE_ARRAY:
                self._close()
            case _State.VALUE | _State.ELEMENT_OR_END:
                return self._value(byte, at)
            case _:
                self._malformed = True
        return at + 1

    def _value(self, byte: int, at: int) -> int:
        """Begin a value; return where to continue."""
        if byte == _QUOTE:
            # An escaped character takes six or twelve bytes.
            self._begin(_State.IN_STRING, 12 * MAX_WORD if self._shape is Leaf.WORD else MAX_VALUE)
        elif byte == _OPEN_OBJECT and isinstance(self._shape, dict):
            self._open(True, self._shape, b"{", _State.KEY_OR_END)
        elif byte == _OPEN_ARRAY and isinstance(self._shape, list):
            [element] = self._shape
            self._open(False, element, b"[", _State.ELEMENT_OR_END)
        elif byte in b"{[":
            self._begin(_State.IN_CONTAINER, MAX_VALUE if self._shape is Leaf.WHOLE else 0)
            self._depth = 1
            self._kept.append(byte)
            self._size = 1
            if self._shape is not None and self._shape is not Leaf.WHOLE:
                self._write(b"null")
        elif byte in b"}]:,":
            self._malformed = True
        else:
            self._begin(_State.IN_SCALAR, MAX_WORD)
            return at
        return at + 1

    def _begin(self, state: _State, keep_limit: int) -> None:
        self._state = state
        self._kept.clear()
        self._size = 0
        self._keep_limit = keep_limit if state is _State.IN_KEY or self._shape is not None else 0

    def _open(self, is_object: bool, shape: Shape, bracket: bytes, state: _State) -> None:
        self._write(bracket)
        self._containers.append((is_object, shape))
        self._shape = shape
        self._state = state

    def _close(self) -> None:
        is_object, _ = self._containers.pop()
        if len(self._out) <= MAX_EXCERPT:
            self._out += b"}" if is_object else b"]"
        self._state = _State.NEXT if self._containers else _State.END

    def _write(self, text: bytes) -> None:
        """Append a name, a value or an opening bracket."""
        if len(self._out) <= MAX_EXCERPT:
            if self._out and self._out[-1] not in b"{[:":
                self._out += b","
            self._out += text


def _decoded(string: bytes) -> str | None:
    """Return the text of a JSON string, or None if it is not valid."""
    try:
        return msgspec.json.decode(string, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
