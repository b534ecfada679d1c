"""The demo model's answers: those that a test scripted, or else a labelled demonstration."""

import re
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

LABEL = "[demo model]"
CHARACTERS_PER_TOKEN = 4

_LISTED = re.compile(r"^[-*\s]*([\w.-]+/[\w.-]+)\s*$", re.MULTILINE)
_FILE = re.compile(r"(?<![\w/.-])(?:[\w-]+/)*[\w-]+\.(?:md|py|js|ts|toml|txt|html|css|go|rs)\b")


@dataclass(frozen=True)
class Usage:
    """Tokens as the provider bills them. `input` includes neither cache reads nor cache writes."""

    input: int
    output: int
    cache_read: int = 0
    cache_creation: int = 0


@dataclass(frozen=True)
class Reply:
    """One scripted answer.

    Without `usage`, tokens are counted from the text. The first byte comes after `delay` seconds,
    and each streamed piece after another `pause` seconds. `error` (the error type in the provider's
    shape) answers with `status` instead. `cut_after` breaks the connection after that number of
    streamed events. `hang` is the number of seconds to send nothing before the end.
    """

    text: str = ""
    usage: Usage | None = None
    delay: float = 0.0
    pause: float = 0.0
    status: int = 200
    error: str = ""
    message: str = "a fault asked for by the test"
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    hang: float = 0.0


@dataclass(frozen=True)
class Prompt:
    """The content of a request, the same for every API."""

    model: str
    system: str
    text: str
    last: str

    @property
    def tokens(self) -> int:
        """The number of input tokens of the whole prompt."""
        return count_tokens(self.system + self.text)


class Script:
    """The replies to give next, in order. Without any, the model answers with a demonstration."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._replies: deque[Reply] = deque()

    def add(self, *replies: Reply) -> None:
        """Give these replies to the next requests."""
        with self._lock:
            self._replies.extend(replies)

    def clear(self) -> None:
        """Return to the demonstration answers."""
        with self._lock:
            self._replies.clear()

    def next(self, prompt: Prompt) -> Reply:
        """Return the reply to a request."""
        with self._lock:
            if self._replies:
                return self._replies.popleft()
        return Reply(demonstration(prompt))


def count_tokens(text: str) -> int:
    """Return a deterministic token count: one for every four characters, at least one."""
    return max(1, -(-len(text) // CHARACTERS_PER_TOKEN))


def usage_of(prompt: Prompt, reply: Reply) -> Usage:
    """Return the usage that is billed for a reply to a prompt."""
    return reply.usage or Usage(prompt.tokens, count_tokens(reply.text))


def demonstration(prompt: Prompt) -> str:
    """Return an answer that nobody can mistake for a real model's.

    If the system prompt asks for one of its listed repositories, name the one that fits. Otherwise
    say which files were shown and what was asked.
    """
    if "choose the one repository" in prompt.system.lower():
        return _choice(_LISTED.findall(prompt.system), prompt.last)
    files = list(dict.fromkeys(_FILE.findall(prompt.system)))[:6]
    shown = f" I was shown {', '.join(files)}." if files else ""
    request = " ".join(prompt.last.split())
    quoted = request if len(request) <= 200 else f"{request[:199]}…"
    return (
        f"{LABEL} This is a scripted answer: no real model read your request.{shown}"
        f" You asked: {quoted}"
    )


def _choice(listed: list[str], request: str) -> str:
    """Return the listed repository whose name has a word in common with the request, or `none`."""
    words = set(re.findall(r"[a-z0-9]+", request.lower()))
    for repository in listed:
        name = repository.partition("/")[2].lower()
        if words & set(re.findall(r"[a-z0-9]{3,}", name)):
            return repository
    return "none"


def text_of(content: Any) -> str:
    """Return the text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text", "") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""
