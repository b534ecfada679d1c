"""Block Kit's limits: what Slack refuses as `invalid_blocks`, and why.

Source: https://docs.slack.dev/reference/block-kit/. Only what our app can send in a message or a
view is known here; any other block, element or field is refused.
"""

from collections.abc import Callable, Iterator
from typing import Any

MOST_OPTIONS = 100
_BLOCK_ID = 255
_ACTION_ID = 255
_URL = 3000
_MOST_CONTEXT = 10
_MOST_FIELDS = 10
_MOST_ACTIONS = 25
_MARKDOWN = 12_000
_TEXT = 40_000
_STYLES = {"primary", "danger"}
_FIELDS = {
    "section": {"block_id", "text", "fields", "accessory", "expand"},
    "header": {"block_id", "text"},
    "context": {"block_id", "elements"},
    "actions": {"block_id", "elements"},
    "divider": {"block_id"},
    "image": {"block_id", "image_url", "alt_text", "title"},
    "markdown": {"block_id", "text"},
    "input": {"block_id", "label", "element", "hint", "optional", "dispatch_action"},
    "plain_text": {"text", "emoji"},
    "mrkdwn": {"text", "verbatim"},
    "button": {"action_id", "text", "value", "url", "style", "confirm", "accessibility_label"},
    "overflow": {"action_id", "options", "confirm"},
    "static_select": {"action_id", "options", "initial_option", "placeholder", "confirm"},
    "external_select": {
        *("action_id", "initial_option", "min_query_length", "placeholder", "confirm"),
    },
    "plain_text_input": {
        *("action_id", "initial_value", "multiline", "min_length", "max_length", "placeholder"),
    },
    "confirm": {"title", "text", "confirm", "deny", "style"},
    "option": {"text", "value", "description", "url"},
}
"""The fields of each block, element and object, besides its type."""

Violations = Iterator[str]


def violations(
    blocks: list[Any], *, most: int = 50, section: int = 3000, in_view: bool = False
) -> list[str]:
    """Return what is wrong with the blocks of a message or a view, each as `path: problem`."""
    found = list(_blocks(blocks, most, section))
    if not in_view:
        inputs = [index for index, block in enumerate(blocks) if _type(block) == "input"]
        found += [f"blocks[{index}]: only views have inputs" for index in inputs]
    return found


def answer_violations(answer: dict[str, Any]) -> list[str]:
    """Return what is wrong with what an app answers to a command, a search or a click."""
    found = violations(answer.get("blocks") or [])
    if "options" in answer:
        found += _options(answer["options"], "options")
    if len(answer.get("text", "")) > _TEXT:
        found.append(f"text: more than {_TEXT} characters")
    return found


def text_violations(value: Any, path: str, most: int) -> list[str]:
    """Return what is wrong with a plain text, such as the title of a view."""
    return list(_plain(value, path, most))


def _blocks(blocks: list[Any], most: int, section: int) -> Violations:
    if len(blocks) > most:
        yield f"blocks: more than {most}"
    named = [block["block_id"] for block in blocks if _is_named(block)]
    if len(named) != len(set(named)):
        yield "blocks: a block_id is used twice"
    markdown = [block.get("text") for block in blocks if _type(block) == "markdown"]
    if sum(len(text) for text in markdown if isinstance(text, str)) > _MARKDOWN:
        yield f"blocks: more than {_MARKDOWN} characters of markdown"
    for index, block in enumerate(blocks):
        path = f"blocks[{index}]"
        if _type(block) not in _KINDS:
            yield f"{path}: an unknown type"
            continue
        yield from _unknown_fields(block, path, _type(block))
        if "block_id" in block:
            yield from _string(block["block_id"], f"{path}.block_id", _BLOCK_ID)
        if _type(block) == "section":
            yield from _section(block, path, section)
        else:
            yield from _KINDS[_type(block)](block, path)


def _is_named(block: Any) -> bool:
    return isinstance(block, dict) and isinstance(block.get("block_id"), str)


def _unknown_fields(value: dict[str, Any], path: str, kind: str) -> Violations:
    for name in sorted(value.keys() - _FIELDS[kind] - {"type"}):
        yield f"{path}.{name}: an unknown field"


def _type(value: Any) -> str:
    return str(value.get("type")) if isinstance(value, dict) else ""


def _section(block: dict[str, Any], path: str, most: int = 3000) -> Violations:
    fields = block.get("fields")
    if "text" not in block and not fields:
        yield f"{path}: neither text nor fields"
    if "text" in block:
        yield from _text(block["text"], f"{path}.text", most)
    if fields is not None:
        yield from _several(fields, f"{path}.fields", _MOST_FIELDS, lambda o, p: _text(o, p, 2000))
    if "accessory" in block:
        yield from _element(block["accessory"], f"{path}.accessory")


def _header(block: dict[str, Any], path: str) -> Violations:
    yield from _plain(block.get("text"), f"{path}.text", 150)


def _context(block: dict[str, Any], path: str) -> Violations:
    def element(value: Any, at: str) -> Violations:
        yield from _image(value, at) if _type(value) == "image" else _text(value, at, 3000)

    yield from _several(block.get("elements"), f"{path}.elements", _MOST_CONTEXT, element)


def _actions(block: dict[str, Any], path: str) -> Violations:
    yield from _several(block.get("elements"), f"{path}.elements", _MOST_ACTIONS, _element)
    listed = _listed(block.get("elements"))
    ids = [one["action_id"] for one in listed if isinstance(one, dict) and one.get("action_id")]
    if len(ids) != len(set(map(str, ids))):
        yield f"{path}: an action_id is used twice"


def _divider(_block: dict[str, Any], _path: str) -> Violations:
    yield from ()


def _image(block: dict[str, Any], path: str) -> Violations:
    yield from _string(block.get("image_url"), f"{path}.image_url", _URL)
    yield from _string(block.get("alt_text"), f"{path}.alt_text", 2000)
    if "title" in block:
        yield from _plain(block["title"], f"{path}.title", 2000)


def _markdown(block: dict[str, Any], path: str) -> Violations:
    yield from _string(block.get("text"), f"{path}.text", _MARKDOWN)


def _input(block: dict[str, Any], path: str) -> Violations:
    yield from _plain(block.get("label"), f"{path}.label", 2000)
    if "hint" in block:
        yield from _plain(block["hint"], f"{path}.hint", 2000)
    element = block.get("element")
    kind = _type(element)
    if kind not in ("plain_text_input", "static_select", "external_select"):
        yield f"{path}.element: an unknown element"
    elif kind == "plain_text_input":
        yield from _plain_text_input(element, f"{path}.element")
    else:
        yield from _element(element, f"{path}.element")


def _plain_text_input(element: Any, path: str) -> Violations:
    yield from _unknown_fields(element, path, "plain_text_input")
    if "action_id" in element:
        yield from _string(element["action_id"], f"{path}.action_id", _ACTION_ID)
    if "placeholder" in element:
        yield from _plain(element["placeholder"], f"{path}.placeholder", 150)
    least, most = element.get("min_length", 0), element.get("max_length", 3000)
    if not 1 <= most <= 3000:
        yield f"{path}.max_length: not from 1 to 3000"
    if not 0 <= least <= most:
        yield f"{path}.min_length: not from 0 to {most}"
    if len(element.get("initial_value", "")) > most:
        yield f"{path}.initial_value: more than {most} characters"


_KINDS: dict[str, Callable[[dict[str, Any], str], Violations]] = {
    "section": _section,
    "header": _header,
    "context": _context,
    "actions": _actions,
    "divider": _divider,
    "image": _image,
    "markdown": _markdown,
    "input": _input,
}


def _element(element: Any, path: str) -> Violations:
    kind = _type(element)
    if kind == "image":
        yield from _image(element, path)
        return
    if kind not in ("button", "static_select", "external_select", "overflow"):
        yield f"{path}: an unknown element"
        return
    yield from _unknown_fields(element, path, kind)
    if "action_id" in element:
        yield from _string(element["action_id"], f"{path}.action_id", _ACTION_ID)
    if "confirm" in element:
        yield from _confirm(element["confirm"], f"{path}.confirm")
    if kind == "button":
        yield from _button(element, path)
    elif kind == "overflow":
        yield from _options(element.get("options"), f"{path}.options", 5)
    else:
        if "placeholder" in element:
            yield from _plain(element["placeholder"], f"{path}.placeholder", 150)
        if kind == "static_select":
            yield from _options(element.get("options"), f"{path}.options")
            if element.get("initial_option") not in (None, *_listed(element.get("options"))):
                yield f"{path}.initial_option: none of the options"
        elif not element.get("min_query_length", 3) >= 0:
            yield f"{path}.min_query_length: negative"


def _button(element: dict[str, Any], path: str) -> Violations:
    yield from _plain(element.get("text"), f"{path}.text", 75)
    if "value" in element:
        yield from _string(element["value"], f"{path}.value", 2000)
    if "url" in element:
        yield from _string(element["url"], f"{path}.url", _URL)
    if "accessibility_label" in element:
        yield from _string(element["accessibility_label"], f"{path}.accessibility_label", 75)
    yield from _style(element, path)


def _style(value: dict[str, Any], path: str) -> Violations:
    if "style" in value and value["style"] not in _STYLES:
        yield f"{path}.style: neither primary nor danger"


def _confirm(confirm: Any, path: str) -> Violations:
    if not isinstance(confirm, dict):
        yield f"{path}: not an object"
        return
    yield from _unknown_fields(confirm, path, "confirm")
    yield from _style(confirm, path)
    for name, most in (("title", 100), ("confirm", 30), ("deny", 30)):
        yield from _plain(confirm.get(name), f"{path}.{name}", most)
    yield from _text(confirm.get("text"), f"{path}.text", 300)


def _options(options: Any, path: str, most: int = MOST_OPTIONS) -> Violations:
    def option(value: Any, at: str) -> Violations:
        if not isinstance(value, dict):
            yield f"{at}: not an object"
            return
        yield from _unknown_fields(value, at, "option")
        yield from _plain(value.get("text"), f"{at}.text", 75)
        yield from _string(value.get("value"), f"{at}.value", 150)
        if "description" in value:
            yield from _plain(value["description"], f"{at}.description", 75)
        if "url" in value:  # only the options of an overflow menu have one
            yield from _string(value["url"], f"{at}.url", _URL)

    if options == [] and path == "options":  # no result of a search
        return
    yield from _several(options, path, most, option)


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else []


def _several(
    values: Any, path: str, most: int, check: Callable[[Any, str], Violations]
) -> Violations:
    if not isinstance(values, list) or not 1 <= len(values) <= most:
        yield f"{path}: not a list of 1 to {most}"
        return
    for index, value in enumerate(values):
        yield from check(value, f"{path}[{index}]")


def _text(value: Any, path: str, most: int) -> Violations:
    if _type(value) not in ("plain_text", "mrkdwn"):
        yield f"{path}: not a text object"
        return
    yield from _unknown_fields(value, path, _type(value))
    yield from _string(value.get("text"), f"{path}.text", most)


def _plain(value: Any, path: str, most: int) -> Violations:
    if _type(value) != "plain_text":
        yield f"{path}: not plain_text"
        return
    yield from _unknown_fields(value, path, "plain_text")
    yield from _string(value.get("text"), f"{path}.text", most)


def _string(value: Any, path: str, most: int) -> Violations:
    if not isinstance(value, str) or not value:
        yield f"{path}: missing or empty"
    elif len(value) > most:
        yield f"{path}: more than {most} characters"
