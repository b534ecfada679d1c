"""Read JSON objects from the lines that an agent writes, whatever the lines contain."""

import json
from typing import Any

LONGEST_LINE = 4 * 1024 * 1024


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
