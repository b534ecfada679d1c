"""HTTP/1.1 with as little CPU as Python allows, so that the harness doesn't limit the results.

One server and one client connection on httptools, both plain `asyncio.Protocol`s.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import httptools


@dataclass(slots=True)
class Request:
    """A request as it arrived, header names in lower case."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes


class ServerConnection(asyncio.Protocol):
    """One connection: `handle(request, connection)` returns the answer, or None to write later."""

    def __init__(self, handle: "Handler") -> None:
        self._handle = handle
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def write(self, data: bytes) -> None:
        """Send bytes unchanged, unless the other side left."""
        if not self.lost:
            self._transport.write(data)

    def on_message_begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        request = Request(
            self._parser.get_method(), self._target, self._headers, b"".join(self._chunks)
        )
        answer = self._handle(request, self)
        if answer is not None:
            self._transport.write(answer)


Handler = Callable[[Request, ServerConnection], bytes | None]


async def serve(handle: Handler) -> tuple[asyncio.Server, str]:
    """Listen on a free port of the loopback interface; return the server and its address."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: ServerConnection(handle), "127.0.0.1", 0, backlog=4096
    )
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def response(status: int, body: bytes, content_type: bytes = b"application/json") -> bytes:
    """Return a whole answer."""
    return b"HTTP/1.1 %d X\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        status, content_type, len(body), body,
    )  # fmt: skip


@dataclass(slots=True)
class Reply:
    """How a call ended, in `time.perf_counter` seconds. `complete` if its last byte arrived."""

    status: int
    started: float
    first_byte: float
    ended: float
    complete: bool
    body: bytes


class ClientConnection(asyncio.Protocol):
    """One connection of the load generator; one call at a time."""

    def __init__(self) -> None:
        self.lost = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[None] | None = None
        self._parser: httptools.HttpResponseParser | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._done()

    def data_received(self, data: bytes) -> None:
        if self._parser is None:  # nobody asked for it
            self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        if not self._first_byte:
            self._first_byte = time.perf_counter()
        self._chunks.append(body)

    def on_headers_complete(self) -> None:
        if self._parser is not None:
            self._status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        self._complete = True
        self._done()

    def _done(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Close at once."""
        self._transport.abort()

    async def call(self, request: bytes) -> Reply:
        """Send a request and read its answer to the end. Status 0 means that there was none."""
        self._parser = httptools.HttpResponseParser(self)
        self._status, self._first_byte, self._complete = 0, 0.0, False
        self._chunks: list[bytes] = []
        self._waiter = self._loop.create_future()
        started = time.perf_counter()
        if self.lost:
            self._done()
        self._transport.write(request)
        await self._waiter
        ended = time.perf_counter()
        self._parser = None
        return Reply(
            self._status,
            started,
            self._first_byte or ended,
            ended,
            self._complete,
            b"".join(self._chunks),
        )


async def connect(url: str) -> ClientConnection:
    """Connect to `http://host:port`. Raises `OSError`."""
    host, _, port = url.removeprefix("http://").partition(":")
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(ClientConnection, host, int(port))
    return connection
