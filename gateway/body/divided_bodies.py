"""Taking the conversation out of a large body, so that most of its bytes are read only once.

The fields of a body are read twice: as bytes, to find duplicates, and as values. The conversation,
which is nearly all of the body, only has to be read as values. It is cut out only if that is safe:
the fields before it are JSON by themselves, the body without it is JSON, and the conversation reads
as one list. No other division of the body has these properties.
"""

import msgspec

MOST_BEFORE = 64 * 1024  # bytes before the conversation
# Bytes after it. With more (tools), searching for its end would cost as much as dividing saves.
MOST_BEHIND = 4 * 1024

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class DividedBody(msgspec.Struct, frozen=True, gc=False):
    """A body in two parts: the value of the field `name`, and an object with all other fields."""

    name: str
    conversation: memoryview
    rest: bytes
    before: dict[str, msgspec.Raw]

    def joined(self, fields: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
        """Return all fields in their original order."""
        return {**self.before, self.name: msgspec.Raw(self.conversation), **fields}


def divide(body: bytes, name: str) -> DividedBody | None:
    """Divide a body; return None if its form does not make that easy and safe."""
    for colon, comma in ((":", ","), (": ", ", ")):  # the two ways in which JSON is written
        opening, separator = f'"{name}"{colon}['.encode(), comma.encode()
        start = body.find(opening, 0, MOST_BEFORE)
        if start >= 0:
            break
    else:
        return None
    head = body[:start].removesuffix(separator)
    try:
        before = _object.decode(head + b"}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if bool(before) != (len(head) < start):
        return None
    end = _end(body, separator)
    if end is None:
        return None
    tail = body[end:] if before else body[end:].removeprefix(separator)
    conversation = memoryview(body)[start + len(opening) - 1 : end]
    return DividedBody(name, conversation, head + tail, before)


def _end(body: bytes, separator: bytes) -> int | None:
    """Return where the conversation seems to end. Reading it will show whether that is right."""
    found, first, at = None, max(0, len(body) - MOST_BEHIND), len(body)
    closing = b"]" + separator
    while (at := body.rfind(closing + b'"', first, at)) >= 0:
        try:
            _object.decode(b"{" + body[at + len(closing) :])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            break
        found = at + 1
    if found is None and body.endswith(b"]}"):
        return len(body) - 1
    return found
