"""Server protocols: uvicorn's own with ASGI, and granian's with RSGI.

Each request becomes an object with the interface of `gateway.network.incoming.Incoming`. The
adapters don't add limits that the library lacks, such as one for the size of a head.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import uvicorn

from gateway.network.headers import Headers
from gateway.network.incoming import BodyBudget, BodyTooLarge, CallerLeft, TooManyBodies
from gateway.settings import from_environment


class Request:
    """What all adapters have in common: the body's budget, and what the application sees."""

    congested = False

    def __init__(
        self, budget: BodyBudget, method: str, path: str, query: bytes, headers: Headers
    ) -> None:
        self.method, self.path, self.query, self.headers = method, path, query, headers
        self.budget = self._share = budget
        self._chunks: list[bytes] = []
        self._size = 0
        self._listener: asyncio.Task[None] | None = None
        self.complete = self.departed = self.started = self.ended = False

    def keep_within(self, share: BodyBudget) -> None:
        """Count the body in a second budget too."""
        self._share = share
        share.kept += self._size

    async def body(self, most: int) -> bytes:
        """Return the whole body."""
        while not self.complete:
            await self.receive()
            if self.departed:
                raise CallerLeft
            if self._size > most:
                raise BodyTooLarge
            for budget in (self._share, self.budget):
                if budget.kept > budget.most:
                    raise TooManyBodies(budget)
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    async def receive(self) -> None:
        """Receive the next part of the body."""
        raise NotImplementedError

    def add(self, data: bytes) -> None:
        """Keep a part of the body."""
        self._chunks.append(data)
        self._size += len(data)
        self.budget.kept += len(data)
        if self._share is not self.budget:
            self._share.kept += len(data)

    def release_body(self) -> None:
        """Note that the body is not kept any longer."""
        self.budget.kept -= self._size
        if self._share is not self.budget:
            self._share.kept -= self._size
        self._size = 0
        self._chunks = []

    def on_departure(self, departed: Callable[[], None] | None) -> None:
        """Listen for the client leaving, which takes a task; None ends it."""
        if departed is not None:
            self._listener = asyncio.get_running_loop().create_task(self._listen(departed))
        elif self._listener is not None:
            self._listener.cancel()
            self._listener = None

    async def _listen(self, departed: Callable[[], None]) -> None:
        await self.disconnected()
        if not self.ended:
            self.departed = True
            departed()

    async def disconnected(self) -> None:
        """Wait until the client left."""
        raise NotImplementedError

    def send_head_soon(self) -> None:
        """Do nothing: the libraries send the head at once or with the first bytes of the body."""

    async def drained(self) -> None:
        """Wait until the library took what was written."""


# --- uvicorn's httptools protocol, ASGI -----------------------------------------------------------


class AsgiRequest(Request):
    """A request in ASGI's messages."""

    def __init__(self, budget: BodyBudget, scope: Any, receive: Any, send: Any) -> None:
        super().__init__(
            budget, scope["method"], scope["path"], scope["query_string"], scope["headers"]
        )
        self._receive = receive
        self._send = send

    async def receive(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.departed = True
            return
        if body := message.get("body"):
            self.add(body)
        self.complete = not message.get("more_body", False)

    async def disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self._step({"type": "http.response.start", "status": status, "headers": headers})

    def write(self, data: bytes) -> None:
        if data:
            self._step({"type": "http.response.body", "body": data, "more_body": True})

    def end(self, data: bytes = b"") -> None:
        self.ended = True
        self._step({"type": "http.response.body", "body": data})

    def _step(self, message: dict[str, Any]) -> None:
        """Run uvicorn's `send` without a task: it waits only for a client that reads slowly."""
        try:
            self._send(message).send(None)
        except StopIteration:
            return
        raise RuntimeError("the load generator reads too slowly for this adapter")


def _asgi() -> Any:
    from gateway.app import create

    gateway = create()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await gateway(scope, receive, send)
            return
        request = AsgiRequest(gateway.body_budget, scope, receive, send)
        await request.receive()
        await gateway.serve(request)  # type: ignore[arg-type]
        request.release_body()

    return application


def serve_asgi() -> None:
    """Serve with uvicorn's own protocol."""
    settings = from_environment()
    uvicorn.run(
        _asgi,
        factory=True,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=4096,
        timeout_keep_alive=600,  # the benchmark stops the process between its turns
    )


# --- granian, RSGI --------------------------------------------------------------------------------


class RsgiRequest(Request):
    """A request in RSGI's objects."""

    def __init__(self, budget: BodyBudget, scope: Any, protocol: Any) -> None:
        headers = [(name.encode(), value.encode()) for name, value in scope.headers.items()]
        super().__init__(budget, scope.method, scope.path, scope.query_string.encode(), headers)
        self._protocol = protocol
        self._head: tuple[int, list[tuple[str, str]]] = (0, [])
        self._transport: Any = None
        self._unsent: list[bytes] = []

    async def receive(self) -> None:
        self.add(await self._protocol())
        self.complete = True

    async def disconnected(self) -> None:
        await self._protocol.client_disconnect()

    def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self._head = (status, [(name.decode(), value.decode()) for name, value in headers])

    def send_head_soon(self) -> None:
        if self._transport is None and not self.ended:
            self._transport = self._protocol.response_stream(*self._head)

    def write(self, data: bytes) -> None:
        if data:
            self.send_head_soon()
            self._unsent.append(data)

    def end(self, data: bytes = b"") -> None:
        self.ended = True
        if self._transport is None:
            self._protocol.response_bytes(*self._head, data)
        elif data:
            self._unsent.append(data)

    @property
    def congested(self) -> bool:  # type: ignore[override]
        """Whether something waits to be passed to granian."""
        return bool(self._unsent)

    async def drained(self) -> None:
        unsent, self._unsent = self._unsent, []
        for data in unsent:
            await self._transport.send_bytes(data)


class _Rsgi:
    """The application for granian, with RSGI's hooks at the start and the end."""

    def __init__(self) -> None:
        from gateway.app import create

        self._gateway = create()

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._received.put_nowait({"type": "lifespan.startup"})
        lifespan = self._gateway({"type": "lifespan"}, self._received.get, self._sent.put)
        self._lifespan = loop.create_task(lifespan)  # type: ignore[arg-type]
        loop.run_until_complete(self._sent.get())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._received.put_nowait({"type": "lifespan.shutdown"})
        loop.run_until_complete(self._lifespan)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        request = RsgiRequest(self._gateway.body_budget, scope, protocol)
        await request.receive()
        await self._gateway.serve(request)  # type: ignore[arg-type]
        await request.drained()
        request.release_body()


def rsgi() -> _Rsgi:
    """Return the application; granian's worker process calls this."""
    return _Rsgi()


def serve_rsgi() -> None:
    """Serve with granian."""
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces, Loops, TaskImpl

    settings = from_environment()
    Granian(
        "benchmarks.parts.servers:rsgi",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.RSGI,
        factory=True,
        loop=Loops.uvloop,
        task_impl=TaskImpl.asyncio,  # calls are cancelled, which granian's own tasks ignore
        http=HTTPModes.http1,
        websockets=False,
        log_access=False,
        backlog=4096,
    ).serve()


def serve_ours() -> None:
    """Serve with the gateway's own protocol."""
    from gateway.__main__ import _serve

    _serve(from_environment())


ALTERNATIVES = {
    "ours": serve_ours,
    "uvicorn httptools, ASGI": serve_asgi,
    "granian, RSGI": serve_rsgi,
}
