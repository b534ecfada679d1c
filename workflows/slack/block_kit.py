"""Block Kit: the blocks of our messages, within Slack's limits.

https://docs.slack.dev/reference/block-kit/. `verbatim` keeps Slack from turning words such as
`@here` or a channel's name into mentions.
"""

from collections.abc import Iterable, Sequence
from itertools import dropwhile
from typing import Any

from workflows.slack.mrkdwn import from_markdown
from workflows.slack.splitting import length, split

Block = dict[str, Any]

FOOTER = "footer"
"""The block id of the line below an answer, which says what it cost."""
_MOST_TEXT = 11_000  # Slack accepts about 13,200 characters in all blocks of a message
_MOST_SECTIONS = 40  # of 50 blocks
_SECTION = 2_400  # of 3,000 characters, because links become longer
_CONTEXT = 2_900


def sections(text: str) -> list[Block]:
    """Return escaped Markdown as sections, or nothing if it doesn't fit into one message."""
    if length(text) > _MOST_TEXT:
        return []
    parts = [section(from_markdown(part)) for part in split(text, _SECTION)]
    return parts if len(parts) <= _MOST_SECTIONS else []


def section(mrkdwn: str, **fields: Any) -> Block:
    """Return a section."""
    return {"type": "section", "text": _mrkdwn(mrkdwn), **fields}


def context(mrkdwn: str, **fields: Any) -> Block:
    """Return a line of small text."""
    return {"type": "context", "elements": [_mrkdwn(mrkdwn[:_CONTEXT])], **fields}


def buttons(*elements: Block) -> Block:
    """Return a row of buttons."""
    return {"type": "actions", "elements": list(elements)}


def header(text: str) -> Block:
    """Return a heading."""
    return {"type": "header", "text": {"type": "plain_text", "text": text, "emoji": True}}


def divider() -> Block:
    """Return a line between two parts."""
    return {"type": "divider"}


def button(label: str, action_id: str, value: str, *, style: str = "") -> Block:
    """Return a button. Its value comes back through the user's browser, so sign it."""
    made = {
        "type": "button",
        "action_id": action_id,
        "text": {"type": "plain_text", "text": label, "emoji": True},
        "value": value,
    }
    return made | ({"style": style} if style else {})


def ending_of(blocks: Iterable[Block]) -> list[Block]:
    """Return what is below the text of an answer: its footer, and its buttons if it has any."""
    return list(dropwhile(lambda block: block.get("block_id") != FOOTER, blocks))


def footer_of(blocks: Iterable[Block]) -> list[Block]:
    """Return the footer of an answer, if it has one."""
    return [block for block in blocks if block.get("block_id") == FOOTER]


def footer_text(blocks: Sequence[Block]) -> str:
    """Return the words of the answer's footer, for messages without blocks."""
    return "".join(block["elements"][0]["text"] for block in footer_of(blocks))


def _mrkdwn(text: str) -> Block:
    return {"type": "mrkdwn", "text": text, "verbatim": True}
