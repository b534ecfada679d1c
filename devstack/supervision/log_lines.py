"""The JSON that our own programs log in the development stack, as text for people."""

import json
from typing import Any

_YELLOW, _RED, _GREY = 33, 31, 90
_COLOURS = {"debug": _GREY, "warning": _YELLOW, "error": _RED, "critical": _RED}
_SHOWN_ELSEWHERE = ("timestamp", "level", "logger", "event", "exception", "stack")


def readable(line: str, *, colour: bool = False) -> list[str]:
    """Return the lines to show for a line of a log: level, event and fields, then a traceback.

    Lines that are not ours stay as they are.
    """
    fields = _fields(line)
    if fields is None:
        return [line]
    level = str(fields.get("level", "info"))
    more = [f"{name}={_value(fields[name])}" for name in fields if name not in _SHOWN_ELSEWHERE]
    said = " ".join([f"{level:<7}", _printable(str(fields["event"])), *more])
    if colour and level in _COLOURS:
        said = f"\033[{_COLOURS[level]}m{said}\033[0m"
    trace = str(fields.get("exception", "")).splitlines()
    return [said, *map(_printable, trace)]


def _fields(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and "event" in fields else None


def _printable(text: str) -> str:
    """Return the text without characters that could move a terminal's cursor."""
    return text if text.isprintable() else json.dumps(text, ensure_ascii=False)[1:-1]


def _value(value: Any) -> str:
    """Return a value as it is, or as JSON if a space or a control character is in it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() and " " not in text else json.dumps(text, ensure_ascii=False)
