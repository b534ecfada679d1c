"""Reading the body of a request within a deadline, a size and a budget that all bodies share."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Limits:
    """What one process spends on request bodies. Sizes are in bytes, times in seconds."""

    seconds: float = 20.0
    """How long a body may take, from its first byte to its last."""
    body: int = 16_000_000
    small: int = 64_000
    """The bytes of a body above this count against the budget that all bodies share."""
    budget: int = 64_000_000


class Refused(Exception):
    """The body is refused; `status` is the HTTP status of the answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Gone(Exception):
    """The client went away before its request was complete."""


@dataclass
class Body:
    """The part of a body that arrived, and how many bytes of the shared budget it takes."""

    content: bytearray = field(default_factory=bytearray)
    taken: int = 0


class Bodies:
    """Reads bodies for one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = limits.budget

    @contextmanager
    def room(self) -> Iterator[Body]:
        """Provide room for one body, which is given back when the block ends."""
        body = Body()
        try:
            yield body
        finally:
            self._left += body.taken

    async def read(self, body: Body, receive: Receive, declared: int) -> None:
        """Read a body of `declared` bytes (0 if that is unknown) to its end.

        Raises `Refused` and `Gone`.
        """
        self._require_size(declared)
        try:
            async with asyncio.timeout(self._limits.seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Gone
                    body.content += message.get("body", b"")
                    self._require_size(len(body.content))
                    self._take(body)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Refused(408, "The request took too long to arrive.") from None

    def _require_size(self, size: int) -> None:
        if size > self._limits.body:
            raise Refused(413, "The request is too large.")

    def _take(self, body: Body) -> None:
        more = max(0, len(body.content) - self._limits.small) - body.taken
        if more > self._left:
            raise Refused(503, "Too many large requests at once.")
        self._left -= more
        body.taken += more
