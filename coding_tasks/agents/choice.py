"""Find the agent that a mention asks for: "with codex, add a flag"."""

import re
from collections.abc import Iterable
from typing import NamedTuple

# Full names of the shipped agents, as people write them.
_FULL_NAMES = {"claude code": "claude", "codex cli": "codex", "mini-swe-agent": "mini"}


class Choice(NamedTuple):
    """The agent's name, or None if the request names none, and the request without the words."""

    agent: str | None
    request: str


def choose_agent(text: str, names: Iterable[str]) -> Choice:
    """Return which of the agents a request asks for by "with NAME" or "using NAME".

    The words count at the beginning of the request, or at the end of one of its lines or sentences,
    because "make it work with claude files" is about the work. The first ones win. Names that are
    not in `names` stay in the request.
    """
    known = {name.lower(): name.lower() for name in names}
    known |= {full: name for full, name in _FULL_NAMES.items() if name in known}
    if not known:
        return Choice(None, text)
    longest_first = sorted(known, key=len, reverse=True)
    words = rf"(?<![^\s,(])(?:with|using)\s{{1,3}}({'|'.join(map(re.escape, longest_first))})"
    begins = rf"\s*{words}(?:\s*[,:]\s*|\s+(?=\S)|\s*$)"
    ends = rf"{words}\)?(?:,?\s+please)?(?=[.!?]?\s*(?:\n|$)|[.!?]\s)"
    found = re.match(begins, text, re.IGNORECASE) or re.search(ends, text, re.IGNORECASE)
    if found is None:
        return Choice(None, text)
    request = text[: found.start()].rstrip(" \t,(") + text[found.end() :]
    return Choice(known[found[1].lower()], request.strip())
