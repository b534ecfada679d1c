"""Refusing duplicate fields: the provider might read the one that was not counted.

JSON does not define what duplicates mean (https://www.rfc-editor.org/rfc/rfc8259#section-4), and
parsers return only the last one. Sizes show whether there are any: if the parsed fields, each
written once, fill the whole object, it has no duplicates. Only objects that don't pass this check
are read again, name by name, up to a total size. That takes nearly a microsecond for each name.
"""

import json
import re
from typing import Any

import msgspec

from gateway.errors import bad_request

# Bytes of one body that may be read name by name, which takes up to about 30 ms.
MOST_READ_AGAIN = 256 * 1024
# Commas within the definitions of tools; each may separate fields.
MOST_IN_TOOLS = 50_000
TWICE = "The request body names a field twice."
# Fields whose nested fields decide about the cost.
_LOOKED_INTO = (
    "thinking", "reasoning", "stream_options", "context_management", "prompt_cache_options",
    "cache_control",
)  # fmt: skip

_NESTED = frozenset({"tools", "environment", "container"})

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])
_space = re.compile(rb"[ \t\n\r]*")


def refuse_ambiguity(body: bytes, fields: dict[str, msgspec.Raw]) -> None:
    """Raise a 400 `Refusal` if a field that may decide about the cost is duplicated."""
    reader = _Reader()
    reader.check(body, fields)
    for name in _LOOKED_INTO:
        if name in fields:
            reader.read_again(bytes(fields[name]))
    if "tools" in fields:
        _check_tools(bytes(fields["tools"]), reader)


def _check_tools(tools: bytes, reader: "_Reader") -> None:
    if tools.count(b",") > MOST_IN_TOOLS:
        raise bad_request("The tools of the request have too many parts.")
    try:
        each = _list.decode(tools)
    except msgspec.ValidationError:
        return  # null
    for tool in each:
        within = _object.decode(tool)
        if within.keys() & _NESTED:
            reader.read_again(bytes(tool))
        else:
            reader.check(bytes(tool), within)


class _Reader:
    """Checks the objects of one body."""

    def __init__(self) -> None:
        self._left = MOST_READ_AGAIN

    def check(self, text: bytes, fields: dict[str, msgspec.Raw]) -> None:
        """Refuse an object if one of its own fields is duplicated."""
        size = 1 + sum(map(len, fields)) + sum(map(len, fields.values())) + 4 * len(fields)
        # If an object has no spaces and this size, nothing but these fields fits into it.
        if len(text) != size and not _made_of(text, fields):
            self.read_again(text)

    def read_again(self, text: bytes) -> None:
        """Refuse JSON in which any object has a duplicate field, or that is too long to check."""
        self._left -= len(text)
        if self._left < 0:
            raise bad_request("The request body is written in a form that cannot be checked.")

        def unique(pairs: list[tuple[str, Any]]) -> int:
            if len({name for name, _ in pairs}) != len(pairs):
                raise ValueError
            return 0

        try:
            json.loads(text, object_pairs_hook=unique)
        except RecursionError:
            raise bad_request("The request body is nested too deeply.") from None
        except ValueError:
            raise bad_request(TWICE) from None


def _made_of(text: bytes, fields: dict[str, msgspec.Raw]) -> bool:
    """Return whether an object has exactly these fields in this order, ignoring spaces."""
    after = _space.match
    at = text.index(b"{") + 1
    for name, value in fields.items():
        for part in (msgspec.json.encode(name), b":", bytes(value)):
            at = after(text, at).end()  # type: ignore[union-attr]
            if not text.startswith(part, at):
                return False
            at += len(part)
        at = after(text, at).end()  # type: ignore[union-attr]
        if text[at : at + 1] not in (b",", b"}"):
            return False
        at += 1
    return after(text, at).end() == len(text)  # type: ignore[union-attr]
