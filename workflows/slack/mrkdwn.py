"""Turn the Markdown that models write into Slack's mrkdwn.

The text is already escaped (`workflows.wording.escape`), so nothing in it can mention anybody. Code
is left as it is.
"""

import re

_FENCE = re.compile(r"^\s*```")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+(.+?)\s*#*$")
_BULLET = re.compile(r"^(\s*)[-*+]\s+")
_CODE = re.compile(r"(`+[^`]*`+)")
_BOLD = re.compile(
    r"\*\*(?=\S)(?P<stars>.+?)(?<=\S)\*\*|(?<!\w)__(?=\S)(?P<lines>(?:(?!__).)+)(?<=\S)__(?!\w)"
)
# The text is escaped, so "&lt;" and "&gt;" end an address as "<" and ">" would.
_ADDRESS = r"https?://(?:(?!&[lg]t;)[^\s<>|`\"'()\[\]])+"
_LINK = re.compile(rf"\[([^\[\]\n]+)\]\(({_ADDRESS})\)|({_ADDRESS})")
_AFTER_ADDRESS = ".,;:!?*_~"


def from_markdown(text: str) -> str:
    """Return escaped Markdown as mrkdwn. Links can make it up to a quarter longer."""
    lines, in_code = [], False
    for line in text.split("\n"):
        if _FENCE.match(line):
            # Slack would show the name of the language as a line of code.
            is_bare = in_code or line.count("```") > 1
            lines.append(line if is_bare else "```")
            in_code ^= line.count("```") % 2 == 1
        else:
            lines.append(line if in_code else _line(line))
    return "\n".join(lines)


def _line(line: str) -> str:
    if heading := _HEADING.match(line):
        inside = _BOLD.sub(lambda found: _bold(found) or found[0], heading[1])
        return f"*{inside}*" if "`" not in inside and "*" not in inside else _inline(inside)
    parts = _CODE.split(_BULLET.sub(r"\1• ", line))
    return "".join(part if index % 2 else _inline(part) for index, part in enumerate(parts))


def _inline(text: str) -> str:
    return _LINK.sub(_link, _BOLD.sub(_in_stars, text))


def _in_stars(found: re.Match[str]) -> str:
    inside = _bold(found)
    return f"*{inside}*" if inside else found[0]


def _bold(found: re.Match[str]) -> str | None:
    """Return the bold text, or None for a name such as `__main__`."""
    if found["stars"]:
        return found["stars"]
    return found["lines"] if " " in found["lines"] else None


def _link(found: re.Match[str]) -> str:
    label, address, bare = found.groups()
    if bare:
        end = bare.rstrip(_AFTER_ADDRESS)
        return f"<{end}>{bare[len(end) :]}"
    # The address stays visible: a label of its own could pretend to lead elsewhere.
    return f"{label} (<{address}>)"
