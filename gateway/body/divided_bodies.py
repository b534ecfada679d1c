"""Taking the conversation out of a large body, so that most of its bytes are read only once.

What decides about a call is read from all of the fields twice: as bytes, to see which there are and
whether one is there twice, and as values. The conversation, nearly all of the body, needs only the
second. It is cut out where that leaves no doubt: what is before it is JSON by itself, so is what is
left without it, and its reader takes it for one list. JSON can be put together in no other way.
"""

import msgspec

MOST_BEFORE = 64 * 1024  # bytes before the conversation
# Bytes behind it. With more there (tools), looking for its end takes what dividing would save.
MOST_BEHIND = 4 * 1024

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class DividedBody(msgspec.Struct, frozen=True, gc=False):
    """A body in two: the value of the field `name`, and an object of all others."""

    name: str
    conversation: memoryview
    rest: bytes
    before: dict[str, msgspec.Raw]

    def joined(self, fields: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
        """Return all fields in the order in which they came."""
        return {**self.before, self.name: msgspec.Raw(self.conversation), **fields}


def divide(body: bytes, name: str) -> DividedBody | None:
    """Divide a body; None where it is not written in a way that makes that easy and certain."""
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
    """Return where the conversation seems to end; its reader will see whether that is so."""
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
