"""One request as it goes through the gateway."""

import os
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import Dialect, Headers
from gateway.trace import NO_TRACE, Trace

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
TellOfDeparture = Callable[[Callable[[], None] | None], None]


class CallerLeft(Exception):
    """The caller is gone; nobody reads an answer."""


_ids: deque[str] = deque()


def new_call_id() -> str:
    """Return a random UUID (version 4); the system is asked for many of them at once."""
    if not _ids:
        block = os.urandom(16 * 256)
        _ids.extend(
            str(uuid.UUID(bytes=block[at : at + 16], version=4)) for at in range(0, len(block), 16)
        )
    return _ids.popleft()


@dataclass(slots=True)
class Call:
    """A request, how to answer it, and what the log line will say of it.

    `headers` has the last of headers sent twice; `raw_headers` has all, in order. `call_id` is a
    UUID: of the request in the log, and of the hold and event if it costs something.
    """

    path: str
    query: bytes
    raw_headers: Headers
    headers: dict[bytes, bytes]
    receive: Receive
    send: Send
    departure: TellOfDeparture
    dialect: Dialect
    call_id: str
    began: float
    product: str = ""
    api: str = ""
    status: int = 0
    reason: str | None = None
    started: bool = False
    trace: Trace = NO_TRACE

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer of our own."""
        self.status, self.started = status, True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})
