"""The HTTP/1.1 server on httptools and asyncio; a coroutine answers each request.

uvicorn starts and stops the processes and owns their sockets. Its own protocol is not used, because
it limits neither the size of a head nor the time to receive it, and costs a tenth more CPU per call
(`docs/decisions/0020-the-gateway-speaks-http-with-a-protocol-of-its-own.md`).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import unquote

import httptools
import structlog

from gateway.network.headers import Headers
from gateway.network.incoming import BodyBudget, Incoming
from gateway.telemetry import metrics

logger = structlog.get_logger("gateway.network.server")

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200  # each takes some 150 bytes of memory, however short it is
HEAD_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 75.0
# To receive the rest of an answered request, and to deliver an answer before closing.
LINGER_SECONDS = 60.0
# Pipelined requests that wait for earlier answers. If a client sends more, it has to repeat them.
MOST_WAITING = 100
_NEVER = float("inf")
_MALFORMED = b"400 Bad Request"
_TOO_SLOW = b"408 Request Timeout"
_TOO_LARGE = b"431 Request Header Fields Too Large"
_REASONS = {
    _MALFORMED: "request_malformed",
    _TOO_SLOW: "head_too_slow",
    _TOO_LARGE: "head_too_large",
}


class Application(Protocol):
    """Answers requests, and has the budget for their bodies."""

    body_budget: BodyBudget

    async def serve(self, request: Incoming) -> None:
        """Answer one request. An exception closes the connection."""


class Connection(asyncio.Protocol):
    """One client connection. uvicorn creates it for `config.loaded_app`, an `Application`.

    Requests are answered one at a time, in order. While one is being answered, the connection stops
    reading the requests behind it. A client that does not read its answers gets no further ones.
    """

    def __init__(
        self, config: Any, server_state: Any, app_state: object, _loop: object = None
    ) -> None:
        self._serve = config.loaded_app.serve
        self._budget: BodyBudget = config.loaded_app.body_budget
        self._connections: set[Any] = server_state.connections
        self._tasks: set[asyncio.Task[None]] = server_state.tasks
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self.paused = False
        self._reading = True
        # The request that is being received, the one that is being answered, and those in between.
        self._receiving: Incoming | None = None
        self._current: Incoming | None = None
        self._queue: deque[Incoming] = deque()
        self._url = b""
        self._headers: Headers = []
        self._in_head = self._in_message = False
        self._bodied_upgrade = False
        self._loose_bytes = 0  # received since the last part of a body: a head, trailers
        self._deaf = False  # ignores further input, because the connection is being closed
        self._deadline = _NEVER
        self._late: Callable[[], None] = self._close
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER

    # --- called by the event loop and by uvicorn -------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for the first request; close without an answer if there is none."""
        self._transport = transport  # type: ignore[assignment]
        self._connections.add(self)
        self._expect_within(HEAD_SECONDS, self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake the task that waits for the client, and drop all references to the connection.

        Without reference cycles, no garbage collection is needed, which would pause all calls.
        """
        self._connections.discard(self)
        self._deaf = True
        if self._timer is not None:
            self._timer.cancel()
        for request in self._queue:
            request.release_body()
        self._queue.clear()
        current, self._current, self._receiving = self._current, None, None
        del self._parser, self._late
        if current is not None:
            current.depart()

    def data_received(self, data: bytes) -> None:
        """Parse the data, unless the connection is being closed."""
        while data and not self._deaf:
            self._loose_bytes += len(data)
            again = b""
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._bodied_upgrade:
                    again = self._without_upgrade(data[upgrade.args[0] :])
                else:  # another protocol would follow, which is not supported
                    self._deaf = True
            except httptools.HttpParserError as error:
                if isinstance(error, httptools.HttpParserCallbackError):
                    logger.error("a request could not be parsed", exc_info=error)
                self._refuse(_MALFORMED)
            data = again
        if self._in_message and not self._deaf:
            if self._loose_bytes > MAX_HEAD_BYTES or len(self._headers) > MAX_HEADERS:
                self._refuse(_TOO_LARGE)
            elif self._in_head and self._reading and self._late != self._too_slow:
                # Only a head that does not arrive in one piece needs a timer.
                self._expect_within(HEAD_SECONDS, self._too_slow)

    def pause_writing(self) -> None:
        """The client reads more slowly than the gateway sends."""
        self.paused = True

    def resume_writing(self) -> None:
        """The client has read most of what was sent."""
        self.paused = False
        if self._current is not None:
            self._current.writable()
        elif not self._transport.is_closing():
            self._go_on()

    def shutdown(self) -> None:
        """Close once the current request is answered."""
        if self._current is None:
            self._close()
        else:
            self._current.keep_alive = False

    # --- called by the parser --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url = b""
        self._headers = []
        self._in_head = self._in_message = True
        self._deadline = _NEVER

    def on_url(self, url: bytes) -> None:
        """Add a part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. Trailers are dropped."""
        if self._in_head:
            if value.endswith((b" ", b"\t")):  # the parser leaves some of them (RFC 9112, 5.1)
                value = value.rstrip(b" \t")
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Answer the request, now or after those before it."""
        self._deadline, self._late = _NEVER, self._close
        if self._loose_bytes > MAX_HEAD_BYTES:
            size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)
            if size > MAX_HEAD_BYTES:
                self._refuse(_TOO_LARGE)
        if len(self._headers) > MAX_HEADERS:
            self._refuse(_TOO_LARGE)
        parser = self._parser
        version = parser.get_http_version()
        hosts = [name for name, _ in self._headers].count(b"host")
        if hosts != 1 and (hosts or version == "1.1"):  # RFC 9112, 3.2
            self._refuse(_MALFORMED)
        if version not in ("1.1", "1.0"):
            self._refuse(_MALFORMED)
        self._bodied_upgrade = (
            parser.should_upgrade()
            and parser.get_method() != b"CONNECT"
            and _is_framed(self._headers)
        )
        try:
            path, query = _split(self._url)
        except ValueError:
            self._refuse(_MALFORMED)
        self._in_head = False
        self._loose_bytes = 0
        if len(self._queue) >= MOST_WAITING:
            self._refuse(b"")  # closes once those before are answered
        if self._deaf or self._bodied_upgrade:
            return
        chunks = version == "1.1"
        request = Incoming(
            self,
            self._budget,
            parser.get_method().decode("ascii"),
            path,
            query,
            self._headers,
            keep_alive=chunks and parser.should_keep_alive() and not parser.should_upgrade(),
            chunks=chunks,
        )
        self._receiving = request
        if self._current is None and not self.paused:
            self._start(request)
        else:
            self._queue.append(request)
            self.pause_reading()

    def on_body(self, body: bytes) -> None:
        """Add a part of the body."""
        self._loose_bytes = 0
        if self._receiving is not None:
            self._receiving.receive(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._in_message = False
        self._loose_bytes = 0
        request, self._receiving = self._receiving, None
        if request is not None:
            request.received()
            if request.ended and not request.keep_alive:
                self._close()
            elif self._current is None:  # answered before it was complete
                self._expect_within(KEEP_ALIVE_SECONDS, self._close)

    # --- used by requests ------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is being closed."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def write_soon(self, request: Incoming) -> None:
        """Send the answer's head at the end of this loop iteration, unless it was sent before."""
        self._loop.call_soon(request.send_head)

    def pause_reading(self) -> None:
        """Stop receiving for now."""
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Continue to receive."""
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def future(self) -> "asyncio.Future[None]":
        """Return a future of the connection's event loop."""
        return self._loop.create_future()

    def answered(self, request: Incoming) -> None:
        """Go on to the next request, or wait for the rest of this one before closing."""
        self._current = None
        if self not in self._connections:
            return  # lost meanwhile
        if request.keep_alive:
            self._go_on()
        elif (request.complete and not self._deaf) or self._transport.is_closing():
            self._close()
        else:
            # Closing while the client still sends would reset the connection, and the client could
            # lose the answers.
            self._transport.write_eof()
            self.resume_reading()
            self._expect_within(LINGER_SECONDS, self._close)

    # --- within ----------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Answer the next request, or continue to receive it."""
        if self.paused:
            self.pause_reading()
            self._expect_within(KEEP_ALIVE_SECONDS, self._close)
            return
        if self._queue:
            self._deadline = _NEVER
            self._start(self._queue.popleft())
            if self._queue:
                return  # the queue must not grow faster than it is answered
        elif self._in_head:
            self._expect_within(HEAD_SECONDS, self._too_slow)
        else:
            seconds = KEEP_ALIVE_SECONDS if self._receiving is None else LINGER_SECONDS
            self._expect_within(seconds, self._close)
        self.resume_reading()

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Return the request without its upgrade header, followed by `rest`.

        A new parser reads it, because the old one takes the body for the other protocol. Java's
        own client asks for HTTP/2 like this.
        """
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self._url, version)]
        lines += [b"%b: %b" % each for each in self._headers if each[0] != b"upgrade"]
        self._parser = httptools.HttpRequestParser(self)
        return b"\r\n".join([*lines, b"", rest])

    def _start(self, request: Incoming) -> None:
        self._current = request
        self._tasks.add(self._loop.create_task(self._answer(request)))

    async def _answer(self, request: Incoming) -> None:
        try:
            await self._serve(request)
        except BaseException as error:
            # This is the top of the task, so a cancellation when the server stops ends here too.
            if not isinstance(error, asyncio.CancelledError):
                logger.exception("a request was not answered")
            if not request.started:
                request.keep_alive = False
                request.start(500, [(b"content-length", b"0")])
                request.end()
        finally:
            request.release_body()
            self._tasks.discard(asyncio.current_task(self._loop))
            if not request.ended:
                request.send_head()
                self._close()  # shows the client that the answer is incomplete

    def _expect_within(self, seconds: float, late: Callable[[], None]) -> None:
        """Call `late` at the deadline unless that is moved. A timer is only moved once it fires."""
        now = self._loop.time()
        self._deadline, self._late = now + seconds, late
        if self._timer is not None and self._timer_at > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer_at = self._deadline
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._deadline == _NEVER:
            return
        left = self._deadline - self._loop.time()
        if left <= 0.001:
            self._late()
        else:
            self._timer_at = self._deadline
            self._timer = self._loop.call_later(left, self._look)

    def _close(self) -> None:
        """Close once the client has read everything, or when that takes too long."""
        self._deaf = True
        self._transport.close()
        if self in self._connections:  # not lost yet
            self._expect_within(LINGER_SECONDS, self._transport.abort)

    def _too_slow(self) -> None:
        self._refuse(_TOO_SLOW)

    def _refuse(self, status: bytes) -> None:
        """Answer with an error and close, or close once the current request is answered."""
        if self._deaf:
            return
        self._deaf = True
        self._headers = []
        current = self._current
        if current is not None and current is not self._receiving:
            if self._queue and self._queue[-1] is self._receiving:
                self._queue.pop().release_body()
            (self._queue[-1] if self._queue else current).keep_alive = False
            return
        answered = current is None and self._in_message and not self._in_head
        if not answered and not (current is not None and current.started):
            metrics.REFUSALS.labels("", _REASONS[status]).inc()
            self._transport.write(
                b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
        self._close()


def _split(target: bytes) -> tuple[str, bytes]:
    """Return the path and query of a request's target. Raises `ValueError`."""
    if target.startswith(b"/") and b"#" not in target:
        raw_path, _, query = target.partition(b"?")
    else:
        try:
            url = httptools.parse_url(target)
        except httptools.HttpParserInvalidURLError as error:
            raise ValueError(str(error)) from None
        raw_path, query = url.path or b"/", url.query or b""
    path = raw_path.decode("ascii")
    return unquote(path) if "%" in path else path, query


def _is_framed(headers: Headers) -> bool:
    """Return whether the headers announce a body."""
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)
