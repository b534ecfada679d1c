"""Split a long text into messages, without cutting entities, emoji or inline code.

Each message ends with a paragraph, a line or a word, where possible. A code block that continues in
the next message is closed and reopened.
"""

import re
import unicodedata
from collections.abc import Iterator

_FENCE = "```"
_FENCES = 2 * len(f"{_FENCE}\n")
"""The length that opening and closing a code block adds to a part."""
_LEAST = 100
_TOKEN = re.compile(r"&(?:amp|lt|gt);|:[a-z0-9_+'-]{1,60}:|`+")
"""An entity, the name of an emoji, or a run of backticks."""
_LONGEST_TOKEN = 70


def split(text: str, at_most: int) -> list[str]:
    """Return the text in parts of at most `at_most` UTF-16 code units (100 or more)."""
    assert at_most >= _LEAST, at_most
    if length(text) <= at_most:
        return [text]
    return [part for part in _parts(text, at_most - _FENCES) if part.strip()] or [text[:at_most]]


def length(text: str) -> int:
    """Return the number of UTF-16 code units, as Slack's clients count: an emoji is two or more."""
    return len(text) + sum(character > "\uffff" for character in text)


def _parts(text: str, room: int) -> Iterator[str]:
    lines: list[str] = []
    size, in_code, reopened = 0, False, False
    for line, goes_on in _lines(text, room):
        takes = length(line) + 1
        while lines and (goes_on or size + takes > room):
            rest = [] if in_code or goes_on else _last_paragraph(lines)
            yield _part(lines[: len(lines) - len(rest)], opens=reopened, closes=in_code)
            lines, reopened = rest, in_code
            size = sum(length(each) + 1 for each in lines)
        lines.append(line)
        size += takes
        in_code ^= line.count(_FENCE) % 2 == 1
        if reopened and lines == [_FENCE]:  # the code block ended with the part
            lines, size, reopened = [], 0, False
    if lines:
        yield _part(lines, opens=reopened, closes=in_code)


def _part(lines: list[str], *, opens: bool, closes: bool) -> str:
    return "\n".join([*[_FENCE] * opens, *lines, *[_FENCE] * closes]).strip("\n")


def _last_paragraph(lines: list[str]) -> list[str]:
    """Return the last paragraph begun, if it should move to the next part as a whole."""
    begin = len(lines)
    while begin > 0 and lines[begin - 1]:
        begin -= 1
    paragraph = lines[begin:]
    has_code = any(_FENCE in line for line in paragraph)
    return paragraph if begin > len(lines) // 2 and not has_code else []


def _lines(text: str, room: int) -> Iterator[tuple[str, bool]]:
    """Yield each line, long ones in pieces, and whether the piece continues a line."""
    for line in text.split("\n"):
        rest, goes_on = line, False
        while length(rest) > room:
            end = _cut(rest, _fitting(rest, room))
            yield rest[:end], goes_on
            rest, goes_on = rest[end:], True
        yield rest, goes_on


def _fitting(line: str, room: int) -> int:
    """Return how many characters at the start of the line fit into `room` code units."""
    units = 0
    for end, character in enumerate(line):
        units += length(character)
        if units > room:
            return end
    return len(line)


def _cut(line: str, most: int) -> int:
    """Return where to cut: after a space if there is one in the second half of what fits."""
    space = line.rfind(" ", most // 2, most)
    while space != -1:
        if line.count("`", 0, space) % 2 == 0:  # not inside inline code
            return space + 1
        space = line.rfind(" ", most // 2, space)
    for end in range(most, most // 2, -1):
        if not _in_token(line, end) and not _shown_as_one(line, end):
            return end
    return most


def _in_token(line: str, end: int) -> bool:
    begin = max(end - _LONGEST_TOKEN, 0)
    near = line[begin : end + _LONGEST_TOKEN]
    return any(found.start() < end - begin < found.end() for found in _TOKEN.finditer(near))


def _shown_as_one(line: str, end: int) -> bool:
    """Return whether the characters on both sides are displayed as one."""
    left, right = line[end - 1], line[end]
    if left == "\u200d" or unicodedata.category(right) in ("Mn", "Mc", "Me", "Cf"):
        return True
    if "\U0001f3fb" <= right <= "\U0001f3ff":  # a skin tone
        return True
    begin = end
    while begin > 0 and _is_regional(line[begin - 1]):
        begin -= 1
    return _is_regional(right) and (end - begin) % 2 == 1  # two of them are a flag


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
