"""Servers on threads of the test process, each with its own event loop and free port."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, Self

import uvicorn

from devstack.servers import free_port
from gateway.network.incoming import BodyBudget, Incoming
from gateway.network.server import Connection
from tests.conftest import wait_until


class AsgiThread:
    """An ASGI application at `url`, served by uvicorn."""

    def __init__(self, app: Any, **options: Any) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            app,
            host="127.0.0.1",
            port=self.port,
            log_config=None,
            ws="none",
            log_level="error",
            **options,
        )
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.server.started or not self._thread.is_alive(), what="the server")
        assert self.server.started
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()


def served_by(serve: Callable[[Incoming], Awaitable[None]]) -> AsgiThread:
    """Serve requests with a coroutine function instead of the gateway."""
    application = SimpleNamespace(serve=serve, body_budget=BodyBudget(1 << 30))
    options = {"interface": "asgi3", "lifespan": "off", "proxy_headers": False}
    return AsgiThread(application, http=Connection, **options)


test_ended = threading.Event()
"""Set between tests. Answers that a failed test held back are then sent, so that it fails at once
instead of waiting for its own calls."""


async def opened(event: threading.Event) -> None:
    """Wait, without blocking the event loop, until another thread sets the event."""
    while not (event.is_set() or test_ended.is_set()):  # noqa: ASYNC110 - set from another thread
        await asyncio.sleep(0.002)


class SocketThread:
    """A raw TCP server at `url`. `handle(reader, writer)` writes every byte."""

    def __init__(
        self, handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._handle = handle
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stop: asyncio.Event
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._serve()), daemon=True
        )

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task] = set()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            self._tasks.add(task)
            try:
                await self._handle(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                self._tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", self.port, backlog=4096)
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        self._loop.close()
