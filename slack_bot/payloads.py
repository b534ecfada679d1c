"""Reading JSON that may have any shape: whatever is not as expected reads as absent."""

import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from coding_tasks.storable import storable

# https://docs.slack.dev/reference/objects/ does not promise a form; these are what Slack sends,
# and all that a column can hold.
_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_TIMESTAMP = re.compile(r"[0-9]{1,16}\.[0-9]{1,9}", re.ASCII)


def parse(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object; an empty one for everything else, however broken or deep."""
    try:
        return mapping(json.loads(text.decode() if isinstance(text, bytes) else text))
    except (ValueError, RecursionError):
        return {}


def form(body: bytes) -> dict[str, str]:
    """Return the first value of each field of a form; nothing for what is no form."""
    try:
        fields = parse_qs(body.decode(), max_num_fields=100)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def mapping(value: object) -> dict[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def first(value: object) -> dict[str, Any]:
    """Return the first item of a list if it is an object, else an empty one."""
    return mapping(value[0]) if isinstance(value, list) and value else {}


def text(value: object, limit: int = 40_000) -> str:
    """Return the value if it is text, as every database takes it: no NUL, no lone surrogate."""
    return storable(value[:limit]) if isinstance(value, str) else ""


def identifier(value: object) -> str:
    """Return the value if it looks like one of Slack's ids (`T…`, `C…`, `U…`), else nothing."""
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else ""


def timestamp(value: object) -> str:
    """Return the value if it is the `ts` of a message, else nothing."""
    return value if isinstance(value, str) and _TIMESTAMP.fullmatch(value) else ""


def moment(value: object) -> datetime | None:
    """Return the instant of a number of Unix seconds, else None."""
    if not isinstance(value, int):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
