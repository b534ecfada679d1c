"""The relay between a socket that listens inside the sandbox and the gateway."""

import asyncio
import contextlib
import socket

from coding_tasks.sandbox.door.admission import PathFilter
from coding_tasks.sandbox.door.exchange import Bounds, Conversation
from coding_tasks.sandbox.door.gateway import Gateway
from coding_tasks.sandbox.interface import Door

MOST_CONNECTIONS = 64
"""Further connections wait until one of these ends."""


class Relay:
    """Relays what comes in through a listening socket, until it is closed."""

    def __init__(self, door: Door, bounds: Bounds | None = None) -> None:
        self._gateway = Gateway.of(door.gateway_url)
        self._paths = PathFilter(door.product)
        self._bounds = bounds or Bounds()
        self._refusals = door.refusals
        self._token = door.token
        self._open = True
        self._accepting: asyncio.Task[None] | None = None
        self._conversations: dict[asyncio.Task[None], Conversation] = {}

    def listen(self, listener: socket.socket) -> None:
        """Relay the connections to this socket, which the relay then owns."""
        if not self._open:
            listener.close()
            return
        listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    def close(self) -> None:
        """Refuse new connections and cut the others at once. Can be repeated."""
        self._open = False
        if self._accepting is not None:
            self._accepting.cancel()
        for task, conversation in self._conversations.items():
            conversation.abort()
            task.cancel()

    async def closed(self) -> None:
        """Return when every connection is released."""
        waiting = [*self._conversations, *filter(None, [self._accepting])]
        await asyncio.gather(*waiting, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        room = asyncio.Semaphore(MOST_CONNECTIONS)
        with listener:
            while True:
                await room.acquire()
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError:  # the sandbox's network is gone, or this process is out of files
                    room.release()
                    await asyncio.sleep(0.1)
                    continue
                self._serve(connection, room)

    def _serve(self, connection: socket.socket, room: asyncio.Semaphore) -> None:
        conversation = Conversation(
            connection, self._gateway, self._paths, self._bounds, self._refusals, self._token
        )
        task = asyncio.get_running_loop().create_task(conversation.run())
        self._conversations[task] = conversation

        def forget(ended: asyncio.Task[None]) -> None:
            room.release()
            self._conversations.pop(ended, None)
            with contextlib.suppress(asyncio.CancelledError):
                ended.exception()  # what a connection dies of concerns nobody else

        task.add_done_callback(forget)
