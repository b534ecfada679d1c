"""One pipelined connection to the gateway's Redis.

All coroutines of a process use the same connection. Commands of one iteration of the event loop are
sent in one packet, and the answers come back in order. What this saves, and why order matters:
`docs/decisions/0030-the-gateways-redis-client-is-its-own.md`.
"""

import asyncio
import hashlib
import re
import ssl
import uuid
from collections import deque
from collections.abc import Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis

CONNECT_TIMEOUT = 1.0
ANSWER_TIMEOUT = 2.0
MAX_WAITING = 50_000
# Commands sent in one packet. Redis works on them while the next ones are packed.
AT_ONCE = 4


class RedisUnavailable(Exception):
    """Redis did not answer; whether the command was carried out is unknown."""


class RedisError(Exception):
    """Redis answered with an error."""


_NOT_NOW = ("LOADING ", "BUSY ", "MASTERDOWN ", "TRYAGAIN ", "CLUSTERDOWN ")
"""Errors of a server that will answer later: it has just started, or is busy or cut off."""


class Script:
    """A Lua script from `gateway/lua/`, run by its digest."""

    def __init__(self, name: str) -> None:
        prelude = files("gateway").joinpath("lua/_prelude.lua").read_text()
        self.name = name
        self.source = prelude + files("gateway").joinpath(f"lua/{name}.lua").read_text()
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class Redis:
    """A client that connects when first used, and again whenever the connection was lost."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss"):
            raise ValueError("GATEWAY_REDIS_URL must begin with redis:// or rediss://")
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 6379
        self._tls = ssl.create_default_context() if parts.scheme == "rediss" else None
        self._username = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._database = parts.path.strip("/") or "0"
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None
        self.server = ""  # the run id of the connected server, which changes with each restart

    async def execute(self, *command: str | bytes | int | float) -> Any:
        """Run one command. Raises `RedisUnavailable` or `RedisError`."""
        connection = self._connection
        if connection is None or connection.lost:
            connection = await self._connect()
        return await connection.send(command)

    async def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """Run a script, sending its source if the server does not have it."""
        connection = self._connection
        if connection is None or connection.lost:
            connection = await self._connect()
        try:
            return await connection.send(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        except RedisError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return await self.execute("EVAL", script.source, len(keys), *keys, *arguments)

    async def now_ms(self) -> int:
        """Return Redis' clock, in milliseconds since 1970."""
        seconds, micros = await self.execute("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def close(self) -> None:
        """Drop the connection; commands in flight fail as unavailable."""
        if self._connection is not None:
            self._connection.close()

    async def _connect(self) -> "_Connection":
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._open())
        return await asyncio.shield(self._connecting)

    async def _open(self) -> "_Connection":
        connection: _Connection | None = None
        server = ""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(
                    _Connection, self._host, self._port, ssl=self._tls
                )
                await self._log_in(connection)
                server = await _run_id(connection)
        except (OSError, TimeoutError, RedisError) as error:
            raise RedisUnavailable(str(error) or "timed out") from None
        finally:
            if connection is not None and not server:
                connection.close()
        self._connection, self.server = connection, server
        return connection

    async def _log_in(self, connection: "_Connection") -> None:
        if self._password:
            user = [self._username] if self._username else []
            await connection.send(("AUTH", *user, self._password))
        if self._database != "0":
            await connection.send(("SELECT", self._database))


async def _run_id(connection: "_Connection") -> str:
    """Return the server's run id, or a random one for this connection if the server has none.

    https://valkey.io/commands/info/ (run_id)
    """
    try:
        answer = await connection.send(("INFO", "server"))
    except RedisError:  # the user has no permission, or the server does not know INFO
        return uuid.uuid4().hex
    found = re.search(rb"^run_id:(\w+)", answer, re.MULTILINE)
    return found[1].decode() if found else uuid.uuid4().hex


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = False
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=RedisError)
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._outgoing: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._watch()

    def send(self, command: tuple[str | bytes | int | float, ...]) -> "asyncio.Future[Any]":
        """Queue a command; return a future with its answer."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.lost or len(self._waiting) >= MAX_WAITING:
            future.set_exception(RedisUnavailable("connection lost"))
            return future
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub names one argument
        self._outgoing.append(packed)
        if len(self._outgoing) == AT_ONCE:
            self._flush()
        self._waiting.append((self._loop.time() + ANSWER_TIMEOUT, future))
        return future

    def _flush(self) -> None:
        if self._outgoing and self._transport is not None and not self.lost:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not False:
                _, future = self._waiting.popleft()
                if future.done():
                    continue
                if isinstance(answer, RedisError):
                    away = str(answer).startswith(_NOT_NOW)
                    future.set_exception(RedisUnavailable(str(answer)) if away else answer)
                else:
                    future.set_result(answer)
        except (hiredis.ProtocolError, IndexError):
            self.close()  # nonsense, or an answer to nothing: no later answer could be trusted

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(RedisUnavailable("connection lost"))

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _watch(self) -> None:
        """Close the connection if the server stopped answering. One timer is for all commands."""
        if self._waiting and self._waiting[0][0] < self._loop.time():
            self.close()
            return
        self._watchdog = self._loop.call_later(ANSWER_TIMEOUT / 4, self._watch)
