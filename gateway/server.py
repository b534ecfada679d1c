"""The HTTP server's protocol: limits on what a client may send before its request counts, answers
in as few packets as may be, and word of a client that left without a task that waits for it.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 20.0
LINGER_SECONDS = 60.0  # for the rest of a request that is answered already
DEPARTURE = "tollgate.departure"
"""Names, in an ASGI scope's state, what is told whom to call when the client leaves."""


class JoinedWrites:
    """A transport that sends the head of an answer together with what follows it at once.

    uvicorn writes them apart, which costs another system call here and wakes the reader twice.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting = b""

    def write(self, data: bytes) -> None:
        """Send with what waits; by itself not before the event loop's next turn."""
        if self._waiting:
            self._send(self._waiting + data)
        elif data:
            self._waiting = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Send what waits, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._waiting:
            self._send(self._waiting)

    def _send(self, data: bytes) -> None:
        self._waiting = b""
        if not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself limits neither the size of a head nor its time."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request; who never sends one is told nothing."""
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        self._in_head = self._in_message = False
        self._loose_bytes = 0  # received since the last part of a body: a head, trailers
        self._refused = False
        self._departed: Callable[[], None] | None = None
        self._impatience: asyncio.TimerHandle | None = self.loop.call_later(
            HEAD_SECONDS, transport.close
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and tell the call that is under way."""
        self._stop_waiting()
        super().connection_lost(exc)
        if self._departed is not None:
            self._departed()

    def data_received(self, data: bytes) -> None:
        """Read on, unless the connection is being closed."""
        if self._refused:
            return
        self._loose_bytes += len(data)
        super().data_received(data)
        if not self._in_message:
            return
        if self._loose_bytes > MAX_HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")
        elif self._in_head and self._impatience is None:
            # Only a head that does not come in one piece is worth a timer.
            self._impatience = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of the head."""
        super().on_message_begin()
        self.scope["state"][DEPARTURE] = self._tell_of_departure
        self._in_head = self._in_message = True
        self._stop_waiting()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers, which nobody reads, are dropped."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._loose_bytes = 0
        self._stop_waiting()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")
        self._in_head = False
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._loose_bytes = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        self._in_message = False
        self._loose_bytes = 0
        self._stop_waiting()
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request; for the rest of this one, if it is not all there, not long."""
        super().on_response_complete()
        if self._in_message and self._impatience is None:
            self._impatience = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _tell_of_departure(self, departed: Callable[[], None] | None) -> None:
        """Call `departed` when the client leaves, at once if it has; None takes that back."""
        self._departed = departed
        if departed is not None and self.cycle.disconnected:
            self.loop.call_soon(departed)

    def _stop_waiting(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _too_slow(self) -> None:
        self._refuse(b"408 Request Timeout")

    def _refuse(self, status: bytes) -> None:
        """Close; with an answer if the request has not begun to get one."""
        if not self._refused and not self.transport.is_closing():
            if self._in_head:
                self.transport.write(
                    b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
            self.transport.close()
        self._refused = True
