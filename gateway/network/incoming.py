"""One request and the answer to it: the interface between the server and the application."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from gateway.network.headers import Headers

# Bytes of a body to receive before the application asks for it.
HIGH_WATER = 64 * 1024
SMALL = 4 * 1024  # parts of a body below this size are joined to the part before
_STATUS_LINES: dict[int, bytes] = {
    **{status: b"HTTP/1.1 %d \r\n" % status for status in range(100, 1000)},
    **{int(each): b"HTTP/1.1 %d %b\r\n" % (each, each.phrase.encode()) for each in HTTPStatus},
}
_BODILESS = frozenset({204, 304})


class CallerLeft(Exception):
    """The caller left, so nobody would read an answer."""


class BodyTooLarge(Exception):
    """The body is longer than allowed."""


class TooManyBodies(Exception):
    """With this body, more bytes would be kept than `budget` allows."""

    def __init__(self, budget: "BodyBudget") -> None:
        self.budget = budget


class BodyBudget:
    """How many bytes of bodies a process or a credential keeps, and may keep at most."""

    __slots__ = ("kept", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept = 0


class Wire(Protocol):
    """What a request needs of its connection."""

    paused: bool  # the client reads more slowly than the gateway sends

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def write_soon(self, request: "Incoming") -> None:
        """Send the answer's head at the end of this loop iteration, unless it was sent before."""

    def pause_reading(self) -> None:
        """Stop receiving for now."""

    def resume_reading(self) -> None:
        """Continue to receive."""

    def future(self) -> "asyncio.Future[None]":
        """Return a future of the connection's event loop."""

    def answered(self, request: "Incoming") -> None:
        """Note that the answer is complete."""


class Incoming:
    """One request. `departed`: its client left. `started` and `ended` refer to the answer."""

    __slots__ = (
        "_chunked", "_chunks", "_departure", "_framed_by_close", "_head", "_head_only", "_kept",
        "_most", "_share", "_size", "_unread", "_waiter", "_wire", "_writable", "budget",
        "complete", "departed", "ended", "headers", "keep_alive", "method", "path", "query",
        "started",
    )  # fmt: skip

    def __init__(
        self,
        wire: Wire,
        budget: BodyBudget,
        method: str,
        path: str,
        query: bytes,
        headers: Headers,
        *,
        keep_alive: bool,
        chunks: bool,
    ) -> None:
        """`chunks`: the client understands the chunked transfer coding."""
        self._wire = wire
        self.budget = self._share = budget
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.keep_alive = keep_alive
        self._framed_by_close = not chunks
        self._head_only = method == "HEAD"
        self._chunks: list[bytes | bytearray] = []
        self._size = self._kept = 0
        self._most = HIGH_WATER
        self._unread = True
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._departure: Callable[[], None] | None = None
        self._head = b""  # of the answer, not sent yet
        self._chunked = False
        self.complete = self.departed = self.started = self.ended = False

    # --- used by the application -----------------------------------------------------------------

    def keep_within(self, share: BodyBudget) -> None:
        """Count the body in a second budget too. Must be called once, before `body`."""
        self._share = share
        share.kept += self._kept

    async def body(self, most: int) -> bytes:
        """Return the whole body, which counts as kept until `release_body` is called.

        Raises `BodyTooLarge` beyond `most` bytes, `TooManyBodies`, or `CallerLeft`.
        """
        if not self.complete:
            self._unread, self._most = False, most
            if not self._chunks and self._expects_continue():
                self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            while not (
                self.complete or self.departed or self._size > most or self._exceeded() is not None
            ):
                # Other bodies may have paused this one, and may be gone by now.
                self._wire.resume_reading()
                self._waiter = self._wire.future()
                await self._waiter
        if self._size > most:
            raise BodyTooLarge
        exceeded = self._exceeded()
        if exceeded is not None:
            raise TooManyBodies(exceeded)
        if not self.complete:
            raise CallerLeft
        body = bytes(self._chunks[0]) if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        return body

    def release_body(self) -> None:
        """Note that the body is not kept any longer."""
        self._count(-self._kept)
        self._chunks.clear()

    def on_departure(self, departed: Callable[[], None] | None) -> None:
        """Call `departed` when the client leaves, or soon if it has left; None cancels that."""
        self._departure = departed
        if departed is not None and self.departed:
            asyncio.get_running_loop().call_soon(departed)

    def start(self, status: int, headers: Headers) -> None:
        """Start the answer. Its head is sent with the first of the body; see `send_head_soon`.

        Without `content-length`, the body is chunked or ends with the connection.
        """
        lines = [_STATUS_LINES[status]]
        framed = self._head_only or status in _BODILESS
        for name, value in headers:
            if name == b"content-length":
                framed = True
            lines.append(b"%b: %b\r\n" % (name, value))
        if not framed:
            if self._framed_by_close:
                self.keep_alive = False
            else:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self._head = b"".join(lines)
        self.started = True

    def send_head_soon(self) -> None:
        """Send the head at the end of this loop iteration, even if no body follows yet."""
        self._wire.write_soon(self)

    def write(self, data: bytes) -> None:
        """Send a part of the body, unless the client left."""
        if not data or self._head_only:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._write(data)

    def end(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        if self._head_only:
            data = b""
        elif self._chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        self._write(data)
        self.ended = True
        self._wire.answered(self)

    @property
    def congested(self) -> bool:
        """Whether the client reads too slowly, so that the sender should await `drained`."""
        return self._wire.paused and not self.departed

    async def drained(self) -> None:
        """Wait until the client has read what was sent, or left."""
        while self.congested:
            self._writable = self._wire.future()
            await self._writable

    # --- used by the connection ------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Add a part of the body."""
        if self.ended or self.departed:
            return
        size, chunks = len(data), self._chunks
        if size < SMALL and chunks:  # one object for each would take many times the memory
            if chunks[-1].__class__ is not bytearray or len(chunks[-1]) > HIGH_WATER:
                chunks.append(bytearray())
            chunks[-1] += data
        else:
            chunks.append(data)
        self._size += size
        self._count(size)
        if self._size > self._most or self._exceeded() is not None:
            self._wire.pause_reading()
            if not self._unread:
                self._wake()

    def received(self) -> None:
        """Note that the body is complete."""
        self.complete = True
        self._wake()

    def depart(self) -> None:
        """Note that the client left."""
        if self.ended:
            return
        self.departed = True
        self._wake()
        self.writable()
        if self._departure is not None:
            self._departure()

    def writable(self) -> None:
        """Note that the client has read what was sent."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def send_head(self) -> None:
        """Send the head if it has not been sent yet."""
        if self._head:
            self._write(b"")

    def _count(self, size: int) -> None:
        self._kept += size
        self.budget.kept += size
        if self._share is not self.budget:
            self._share.kept += size

    def _exceeded(self) -> BodyBudget | None:
        for budget in (self._share, self.budget):
            if budget.kept > budget.most:
                return budget
        return None

    def _write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        if data and not self.departed:
            self._wire.write(data)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expects_continue(self) -> bool:
        # HTTP/1.0 clients don't understand interim answers (RFC 9110, 10.1.1).
        return not self._framed_by_close and any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers
        )
