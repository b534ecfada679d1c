"""Read an agent's output: bounded lines from bytes, and JSON objects from lines."""

import json
from collections.abc import Iterator
from typing import Any

LONGEST_LINE = 4 * 1024 * 1024


class LineSplitter:
    """Cuts a stream of bytes into lines. A line longer than `longest` is dropped whole."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._kept = bytearray()
        self._dropping = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that these bytes end, without their newlines."""
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._take(part)
            line, whole = bytes(self._kept), not self._dropping
            self._kept, self._dropping = bytearray(), False
            if whole:
                yield line
        self._take(rest)

    def end(self) -> Iterator[bytes]:
        """Yield the last line if it has no newline."""
        if self._kept:
            yield bytes(self._kept)
        self._kept = bytearray()

    def _take(self, part: bytes) -> None:
        if self._dropping or len(self._kept) + len(part) > self._longest:
            self._kept, self._dropping = bytearray(), True
        else:
            self._kept += part


def json_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line, or an empty one if the line holds none."""
    if len(line) > LONGEST_LINE:
        return {}
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, a huge number, or nested too deeply
        return {}
    return value if isinstance(value, dict) else {}


def part(value: object, name: str) -> dict[str, Any]:
    """Return the object at this name, or an empty one."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def parts(value: object, name: str) -> list[dict[str, Any]]:
    """Return the objects in the list at this name, or none."""
    found = value.get(name) if isinstance(value, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def text_of(content: object) -> str:
    """Return the text of a message's content: a string, or a list of parts with texts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (item.get("text") for item in content if isinstance(item, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def compact(value: object, most: int = 300) -> str:
    """Return a value as short JSON, for people."""
    try:
        return json.dumps(value, ensure_ascii=False)[:most]
    except (ValueError, RecursionError):
        return ""
