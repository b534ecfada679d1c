"""The demo model's scripted answers, and what a prompt and an answer cost."""

import json
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Usage:
    """Tokens as the provider bills them. `input` includes neither cache reads nor cache writes."""

    input: int
    output: int
    cache_read: int = 0
    cache_creation: int = 0


@dataclass(frozen=True)
class ToolCall:
    """A call of one of the caller's tools. Arguments are an object, or a text if the tool is free.

    A free tool takes any text, as OpenAI's custom tools do.
    """

    name: str
    arguments: dict[str, Any] | str

    @property
    def written(self) -> str:
        """The arguments as a model writes them."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Reply:
    """One scripted answer: a text, calls of tools, or both.

    Without `usage`, tokens are counted from the text. The first byte comes after `delay` seconds,
    and each streamed piece after another `pause` seconds. `error` (the error type in the provider's
    shape) answers with `status` instead. `cut_after` breaks the connection after that number of
    streamed events. `hang` is the number of seconds to send nothing before the end.
    """

    text: str = ""
    tools: tuple[ToolCall, ...] = ()
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
    """The content of a request, the same for every API.

    `last` is what a person said last, `results` what the tools returned since then, and `tools` the
    names of the tools that the caller offers.
    """

    model: str
    system: str
    text: str
    last: str
    tools: tuple[str, ...] = ()
    results: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """The number of input tokens of the whole prompt."""
        return count_tokens(self.system + self.text)


class Script:
    """The replies to give next, in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._replies: deque[Reply] = deque()

    def add(self, *replies: Reply) -> None:
        """Give these replies to the next requests."""
        with self._lock:
            self._replies.extend(replies)

    def clear(self) -> None:
        """Forget the replies that were not given yet."""
        with self._lock:
            self._replies.clear()

    def next(self, prompt: Prompt) -> Reply | None:
        """Return the reply to give to this prompt, or None if there is none left."""
        with self._lock:
            return self._replies.popleft() if self._replies else None


def count_tokens(text: str) -> int:
    """Return a deterministic token count: one for every four characters, at least one."""
    return max(1, -(-len(text) // CHARACTERS_PER_TOKEN))


def usage_of(prompt: Prompt, reply: Reply) -> Usage:
    """Return the usage that is billed for a reply to a prompt."""
    written = "".join([reply.text, *(call.name + call.written for call in reply.tools)])
    return reply.usage or Usage(prompt.tokens, count_tokens(written))


def text_of(content: Any) -> str:
    """Return the text of a message's content, which is a string or a list of parts.

    The text of a tool's call is its arguments, and that of a tool's result is what it returned.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_text_of_part(part) for part in content if isinstance(part, dict))
    return ""


def _text_of_part(part: dict[str, Any]) -> str:
    if part.get("type") == "tool_use":
        return json.dumps(part.get("input"))
    text = part.get("text", part.get("content"))
    return text_of(text)
