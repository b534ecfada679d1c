"""Read JSON of any shape. A value of an unexpected type counts as absent."""

import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from coding_tasks.storable import storable

# https://docs.slack.dev/reference/objects/ doesn't document the form of ids. All ids that Slack
# sends match this, and fit in our columns.
_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_TIMESTAMP = re.compile(r"[0-9]{1,16}\.[0-9]{1,9}", re.ASCII)


def parse(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object, or an empty one if the text is anything else."""
    try:
        return mapping(json.loads(text.decode() if isinstance(text, bytes) else text))
    except (ValueError, RecursionError):
        return {}


def form(body: bytes) -> dict[str, str]:
    """Return the first value of each field of a form, or {} if the body is not a form."""
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


def action_of(payload: dict[str, Any], *action_ids: str) -> dict[str, Any]:
    """Return the first action with one of these ids in a click's payload, else an empty one."""
    listed = payload.get("actions")
    actions = [mapping(action) for action in listed] if isinstance(listed, list) else []
    return next((action for action in actions if action.get("action_id") in action_ids), {})


def is_in_home(payload: dict[str, Any]) -> bool:
    """Return whether a click was made in the app's Home tab, which belongs to no channel."""
    return mapping(payload.get("view")).get("type") == "home"


def text(value: object, limit: int = 40_000) -> str:
    """Return the value if it is text, cut to the limit and storable in every database, else ""."""
    return storable(value[:limit]) if isinstance(value, str) else ""


def identifier(value: object) -> str:
    """Return the value if it looks like one of Slack's ids (`T…`, `C…`, `U…`), else ""."""
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else ""


def timestamp(value: object) -> str:
    """Return the value if it is the `ts` of a message, else an empty string."""
    return value if isinstance(value, str) and _TIMESTAMP.fullmatch(value) else ""


def moment(value: object) -> datetime | None:
    """Return the time for a number of Unix seconds, or None if the value is not one."""
    if not isinstance(value, int):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
