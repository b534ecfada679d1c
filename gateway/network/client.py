"""A small HTTP/1.1 client on httptools and asyncio.

It does only what a gateway needs: raw header pairs, bodies passed on as they come, with
backpressure, and connections kept alive. It has no redirects, retries or decompression. A call
takes a fifth less CPU than with the cheapest library
(`docs/decisions/0029-the-gateways-http-client-is-its-own.md`).
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

from gateway.network.dialing import EgressProxy, connect, tunnel
from gateway.network.headers import Headers

JOINED_BYTES = 16 * 1024  # a body up to this size leaves in one piece with its head
HIGH_WATER = 128 * 1024  # unread bytes of a body at which the client stops receiving
MAX_HEAD = 256 * 1024
MAX_IDLE = 512
# Shorter than any provider keeps idle connections, so none is used that the provider is about to
# close.
IDLE_SECONDS = 15.0


class ConnectFailed(Exception):
    """The connection could not be made, so nothing was sent."""


class ExchangeFailed(Exception):
    """The connection broke or carried nonsense; the server may have got the request."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """The address of a server: scheme, host and port, and the path before every target.

    Compared by identity: two origins with equal fields do not share connections.
    """

    host: str
    port: int
    tls: bool
    prefix: str
    authority: bytes

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Parse `http(s)://host[:port][/prefix]`. Raises `ValueError` for anything else."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an address of a server: {url!r}")
        tls = parts.scheme == "https"
        usual = 443 if tls else 80
        port = parts.port or usual
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        authority = host if port == usual else f"{host}:{port}"
        return cls(parts.hostname, port, tls, parts.path.rstrip("/"), authority.encode())


class HttpClient:
    """Connections to any number of servers."""

    def __init__(self, connect_timeout: float, egress: EgressProxy | None = None) -> None:
        """`egress`: the proxy for TLS connections to the hosts that it covers."""
        self._connect_timeout = connect_timeout
        self._egress = egress
        self._idle: dict[Origin, deque[tuple[float, _Connection]]] = {}
        self._tls: ssl.SSLContext | None = None

    async def open(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: Headers,
        body: bytes,
        sending: Callable[[], None] = lambda: None,
    ) -> "HttpResponse":
        """Send a request and return the answer once its head has arrived.

        Adds `host` and `content-length`. Calls `sending` before the first byte is sent. Raises
        `ConnectFailed` or `ExchangeFailed`. Cancelling closes the connection.
        """
        start = f"{method} {origin.prefix}{target} HTTP/1.1".encode("latin-1")
        lines = [start, b"host: " + origin.authority]
        lines += [b": ".join(header) for header in headers]
        if body or method != "GET":
            lines.append(b"content-length: %d" % len(body))
        lines.append(b"\r\n")
        head = b"\r\n".join(lines)
        connection = self._take(origin) or await self._connect(origin)
        try:
            sending()
            connection.send(head, body)
            while not connection.begun:
                connection.check()
                await connection.more()
        except BaseException:
            connection.abort()
            raise
        return HttpResponse(self, origin, connection)

    async def fetch(
        self, origin: Origin, method: str, target: str, headers: Headers, body: bytes, most: int
    ) -> tuple[int, bytes]:
        """Send a request; return the status and the whole body, of at most `most` bytes."""
        response = await self.open(origin, method, target, headers, body)
        try:
            chunks, size = [], 0
            while (chunk := await response.read()) is not None:
                size += len(chunk)
                if size > most:
                    raise ExchangeFailed("the answer is too long")
                chunks.append(chunk)
            return response.status, b"".join(chunks)
        finally:
            response.close()

    def close(self) -> None:
        """Close the idle connections."""
        for waiting in self._idle.values():
            for _, connection in waiting:
                connection.abort()
        self._idle.clear()

    def _take(self, origin: Origin) -> "_Connection | None":
        waiting = self._idle.get(origin)
        if waiting:
            earliest = time.monotonic() - IDLE_SECONDS
            while waiting:
                since, connection = waiting.pop()
                if connection.is_usable and since > earliest:
                    return connection
                connection.abort()
        return None

    def _give_back(self, origin: Origin, connection: "_Connection") -> None:
        waiting = self._idle.get(origin)
        if waiting is None:
            waiting = self._idle[origin] = deque()
        now = time.monotonic()
        waiting.append((now, connection))
        # The connections that have been idle longest are on the left.
        while len(waiting) > MAX_IDLE or waiting[0][0] < now - IDLE_SECONDS:
            waiting.popleft()[1].abort()

    async def _connect(self, origin: Origin) -> "_Connection":
        try:
            async with asyncio.timeout(self._connect_timeout):
                if not origin.tls:
                    return await connect(_Connection, origin.host, origin.port, None)
                if self._tls is None:
                    self._tls = ssl.create_default_context()
                if self._egress is not None and self._egress.covers(origin.host):
                    return await tunnel(
                        _Connection, self._egress, origin.host, origin.port, self._tls
                    )
                return await connect(_Connection, origin.host, origin.port, self._tls)
        except TimeoutError:
            raise ConnectFailed("timed out") from None
        except OSError as error:
            raise ConnectFailed(str(error)) from None


class HttpResponse:
    """An answer whose body is still to be read."""

    def __init__(self, client: HttpClient, origin: Origin, connection: "_Connection") -> None:
        self._client = client
        self._origin = origin
        self._connection: _Connection | None = connection
        self.status = connection.status
        self.headers = connection.headers

    async def read(self) -> bytes | None:
        """Return the next bytes as they come, or None at the end. Raises `ExchangeFailed`."""
        connection = self._connection
        if connection is None:
            return None
        while not (chunk := connection.take()):
            if connection.complete:
                self._connection = None
                if connection.is_reusable:
                    connection.renew()
                    self._client._give_back(self._origin, connection)
                else:
                    connection.abort()
                return None
            connection.check()
            await connection.more()
        return chunk

    def close(self) -> None:
        """Close the connection unless the answer was read to its end."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None


class _Connection(asyncio.Protocol):
    """One connection and the exchange on it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._lost = False
        self._waiter: asyncio.Future[None] | None = None
        self.renew()

    def renew(self) -> None:
        """Get ready for the next exchange."""
        self.begun = self.complete = False
        self._surplus = False
        self._framed = False
        self._keep_alive = False
        self._broken: str | None = None
        self._head_size = 0
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._sending = False
        self.status = 0
        self.headers: Headers = []

    # --- used by the client ----------------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        """Whether another exchange may begin: it is open and received nothing unexpected."""
        return not self._lost and self._broken is None and not self._transport.is_closing()

    @property
    def is_reusable(self) -> bool:
        """Whether another exchange may follow on this connection."""
        return self.complete and self._keep_alive and not self._surplus and self.is_usable

    def send(self, head: bytes, body: bytes) -> None:
        """Write a request."""
        self._sending = True
        if len(body) <= JOINED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def take(self) -> bytes:
        """Return the bytes received since the last call, possibly none."""
        chunks = self._chunks
        if not chunks:
            return b""
        chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self._paused and not self._lost:
            self._paused = False
            self._transport.resume_reading()
        return chunk

    def more(self) -> "asyncio.Future[None]":
        """Return a future that is done when data arrives or no more can arrive."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def check(self) -> None:
        """Raise `ExchangeFailed` if no more data can arrive."""
        if self._broken is not None:
            raise ExchangeFailed(self._broken)
        if self._lost:
            raise ExchangeFailed("the connection was closed")

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- called by the event loop ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self._sending or self.complete:
            self._broken = "unexpected data"
            self._transport.abort()
            return
        try:
            if not self.begun:
                self._head_size += len(data)
            self._parser.feed_data(data)
            if not self.begun and self._head_size > MAX_HEAD:
                self._broken = "the head is too long"
        except httptools.HttpParserError as error:
            self._broken = f"not HTTP: {error}"
        except httptools.HttpParserUpgrade:
            self._broken = "an unexpected upgrade"
        if self._broken is not None:
            self._transport.abort()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        del self._parser  # breaks the reference cycle, so no garbage collection is needed
        if self.begun and not self._framed and self._broken is None and error is None:
            self.complete = True  # the end of the connection was the end of the body
        self._wake()

    # --- called by the parser --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            self._surplus = True  # an answer without a request is dropped
        else:
            self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._surplus or self.begun:
            return  # trailers are dropped
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self._surplus:
            self.status = status
            self.begun = True
            self._framed = self._framed or status in (204, 304)
            self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        if self._surplus:
            return
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.begun:  # not after 100 Continue or 103 Early Hints
            self.complete = True
