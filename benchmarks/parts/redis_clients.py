"""Redis clients with the interface of `gateway.network.redis_connection.Redis`."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from gateway.network.redis_connection import RedisError, RedisUnavailable, Script

Value = str | bytes | int | float
# The commands of a process must arrive in the order in which they were sent. In a pool, answers can
# overtake each other. The gateway then assumes that Redis lost data, and refuses calls.
MOST_CONNECTIONS = 1


class RedisPy:
    """redis-py with hiredis, one command at a time on its connection, raw answers."""

    def __init__(self, url: str) -> None:
        import redis.asyncio
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=MOST_CONNECTIONS,
            timeout=2.0,
            socket_connect_timeout=1.0,
            socket_timeout=2.0,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )
        self._client = redis.asyncio.Redis(connection_pool=pool)
        self._client.response_callbacks.clear()
        self._refused = redis.exceptions.ResponseError
        self._failed = redis.exceptions.RedisError
        self.server = ""

    async def execute(self, *command: Value) -> Any:
        """Run one command."""
        try:
            if not self.server:
                answer = await self._client.execute_command("INFO", "server")
                self.server = re.findall(rb"run_id:(\w+)", answer)[0].decode()
            return await self._client.execute_command(*command)  # type: ignore[arg-type]
        except self._refused as error:
            raise RedisError(str(error)) from None
        except self._failed as error:
            raise RedisUnavailable(str(error)) from None

    async def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """Run a script, sending its source if the server does not have it."""
        try:
            return await self.execute("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except RedisError as error:
            if "NOSCRIPT" not in str(error) and "No matching script" not in str(error):
                raise
        return await self.execute("EVAL", script.source, len(keys), *keys, *arguments)

    def close(self) -> None:
        """Do nothing: the process ends soon."""


class Coredis:
    """coredis, whose connection is shared by the commands under way; raw answers."""

    def __init__(self, url: str) -> None:
        import coredis
        from coredis.retry import NoRetryPolicy

        self._library = coredis
        self._client: Any = coredis.Redis.from_url(
            url,
            max_connections=MOST_CONNECTIONS,
            connect_timeout=1.0,
            stream_timeout=2.0,
            retry_policy=NoRetryPolicy(),
        )
        self._opened: asyncio.Future[None] | None = None
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.server = ""

    async def execute(self, *command: Value) -> Any:
        """Run one command."""
        try:
            if not self.server:
                await self._open()
            return await self._send(command)
        except self._library.exceptions.ResponseError as error:
            raise RedisError(str(error)) from None
        except self._library.exceptions.RedisError as error:
            raise RedisUnavailable(str(error)) from None

    async def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """Run a script, sending its source if the server does not have it."""
        try:
            return await self.execute("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except RedisError as error:
            if "script" not in str(error).lower():
                raise
        return await self.execute("EVAL", script.source, len(keys), *keys, *arguments)

    async def _send(self, command: tuple[Value, ...]) -> Any:
        from coredis.commands.request import CommandRequest

        name = str(command[0]).encode()
        request: Any = CommandRequest(name, *command[1:], execution_parameters={})
        return await self._client.execute_command(request)

    async def _open(self) -> None:
        if self._opened is None:
            self._opened = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._hold_open(self._opened))
        await asyncio.shield(self._opened)
        answer = await self._send(("INFO", "server"))
        self.server = re.findall(rb"run_id:(\w+)", answer)[0].decode()

    async def _hold_open(self, opened: asyncio.Future[None]) -> None:
        """Keep the client's task group in one task, as it requires."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._client)
            opened.set_result(None)
            await self._closing.wait()

    def close(self) -> None:
        """Close the connections soon."""
        self._closing.set()


ALTERNATIVES = {"redis-py": RedisPy, "coredis": Coredis}
