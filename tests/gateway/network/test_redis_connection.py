"""The Redis client on its own.

Most tests use a real server, which asks for a password, stops, or forgets scripts. A fake server
sends what a real one cannot be made to send.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from devstack.servers import accepts_connections, free_port, redis_server
from gateway.network import redis_connection
from gateway.network.redis_connection import (
    Redis,
    RedisError,
    RedisUnavailable,
    Script,
    _Connection,
)
from tests.conftest import running
from tests.gateway.certificates import certificate, server_context

LEAD = Script("lead")


# --- a real server --------------------------------------------------------------------------------


@contextmanager
def server(directory: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen]]:
    """Run a server with more options; yield its port and its process."""
    program = redis_server("redis", directory, free_port())
    assert program.port is not None
    port = program.port
    program = replace(
        program, argv=[*program.argv, *options], ready=lambda: accepts_connections(port)
    )
    with running(program, directory / "redis.log") as process:
        yield port, process


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server with a password, and with a user of its own for one command."""
    with server(
        tmp_path_factory.mktemp("guarded"),
        *("--requirepass", "of/the@default"),
        *("--user", "reader", "on", ">its:password", "~*", "+ping", "+select"),
    ) as (port, _):
        yield port


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, subprocess.Popen]]:
    """The port and process of a server that anybody may use."""
    with server(tmp_path_factory.mktemp("ordinary")) as started:
        yield started


async def test_logs_in_with_a_password(guarded: int) -> None:
    client = Redis(f"redis://:of%2Fthe%40default@127.0.0.1:{guarded}/0")
    assert await client.execute("ACL", "WHOAMI") == b"default"
    client.close()


async def test_logs_in_as_a_user_who_may_not_ask_for_the_run_id(guarded: int) -> None:
    client = Redis(f"redis://reader:its%3Apassword@127.0.0.1:{guarded}/2")
    assert await client.execute("PING") == b"PONG"
    assert len(client.server) == 32  # a random one
    with pytest.raises(RedisError, match="NOPERM"):
        await client.execute("GET", "x")
    client.close()


@pytest.mark.parametrize("login", ["", ":wrong@", "reader:wrong@", "nobody:its:password@"])
async def test_a_refused_password_makes_redis_unavailable(guarded: int, login: str) -> None:
    client = Redis(f"redis://{login}127.0.0.1:{guarded}/1")
    with pytest.raises(RedisUnavailable, match=r"NOAUTH|WRONGPASS"):
        await client.execute("GET", "x")
    client.close()


async def test_uses_the_database_of_the_address(ordinary: tuple[int, subprocess.Popen]) -> None:
    port, _ = ordinary
    client = Redis(f"redis://127.0.0.1:{port}/7")
    await client.execute("SET", "where", "here")
    client.close()
    with redis.Redis(port=port, db=7) as seventh, redis.Redis(port=port, db=0) as first:
        assert seventh.get("where") == b"here"
        assert first.get("where") is None


async def test_commands_arrive_in_the_order_in_which_they_were_sent(
    ordinary: tuple[int, subprocess.Popen],
) -> None:
    client = Redis(f"redis://127.0.0.1:{ordinary[0]}/0")
    count = 10 * redis_connection.AT_ONCE + 1
    lengths = await asyncio.gather(*(client.execute("RPUSH", "order", n) for n in range(count)))
    assert lengths == list(range(1, count + 1))
    assert await client.execute("LRANGE", "order", 0, -1) == [b"%d" % n for n in range(count)]
    client.close()


async def test_a_script_is_sent_again_to_a_server_that_forgot_it(
    ordinary: tuple[int, subprocess.Popen],
) -> None:
    client = Redis(f"redis://127.0.0.1:{ordinary[0]}/0")
    for _ in range(2):
        await client.execute("SCRIPT", "FLUSH")
        assert await client.run(LEAD, ["leader"], b"me", 60_000) == 1
    assert await client.run(LEAD, ["leader"], b"you", 60_000) == 0
    client.close()


async def test_a_silent_server_is_given_up_and_used_again_once_it_answers(
    ordinary: tuple[int, subprocess.Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_connection, "ANSWER_TIMEOUT", 0.2)
    monkeypatch.setattr(redis_connection, "CONNECT_TIMEOUT", 0.2)
    port, process = ordinary
    client = Redis(f"redis://127.0.0.1:{port}/0")
    await client.execute("SET", "x", "1")
    before = client._connection
    process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            failed = await asyncio.gather(
                *(client.execute("INCR", "x") for _ in range(3)), return_exceptions=True
            )
            assert [type(each) for each in failed] == [RedisUnavailable] * 3
            with pytest.raises(RedisUnavailable):  # a new connection gets no answer either
                await client.execute("GET", "x")
    finally:
        process.send_signal(signal.SIGCONT)
    async with asyncio.timeout(20):
        while True:
            with suppress(RedisUnavailable):
                await client.execute("PING")
                break
    assert client._connection is not before
    client.close()


async def test_a_restarted_server_has_another_run_id(tmp_path: Path) -> None:
    with server(tmp_path) as (port, _):
        client = Redis(f"redis://127.0.0.1:{port}/0")
        await client.execute("PING")
        first = client.server
    program = redis_server("redis", tmp_path, port)
    with running(program, tmp_path / "again.log"):
        async with asyncio.timeout(20):
            while True:
                with suppress(RedisUnavailable):
                    await client.execute("PING")
                    break
    assert client.server != first
    client.close()


# --- TLS ------------------------------------------------------------------------------------------


@asynccontextmanager
async def behind_tls(port: int, pem: Path) -> AsyncIterator[int]:
    """Put TLS in front of a server; yield the port to connect to."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    handled: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handled.append(task)
        inner = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, inner[1]), pipe(inner[0], writer))
        await inner[1].wait_closed()

    outer = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_context(pem))
    yield outer.sockets[0].getsockname()[1]
    outer.close()
    await asyncio.gather(*handled)


@pytest.mark.parametrize(
    ("named", "is_trusted", "works"),
    [("localhost", True, True), ("localhost", False, False), ("redis.example", True, False)],
    ids=["trusted", "unknown issuer", "another name"],
)
async def test_tls_verifies_the_server(
    ordinary: tuple[int, subprocess.Popen],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: str,
    is_trusted: bool,
    works: bool,
) -> None:
    pem = certificate(tmp_path, named)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    async with behind_tls(ordinary[0], pem) as port:
        client = Redis(f"rediss://localhost:{port}/0")
        if works:
            assert await client.execute("PING") == b"PONG"
        else:
            with pytest.raises(RedisUnavailable, match="certificate verify failed"):
                await client.execute("PING")
        client.close()


# --- answers that no real server can be made to give ----------------------------------------------


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[tuple[Redis, list[asyncio.Task[None]]]]:
    """Give the next answer for each read, in pieces at `|`; close after `!`.

    Yield a client and the connections that were made to the server.
    """
    waiting = list(answers)
    connections: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.append(task)
        with suppress(ConnectionError):
            while await reader.read(65536):
                answer = waiting.pop(0)
                for part in answer.rstrip(b"!").split(b"|"):
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.005)
                if answer.endswith(b"!"):
                    break
        writer.close()

    fake = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = Redis(f"redis://127.0.0.1:{fake.sockets[0].getsockname()[1]}/0")
    async with asyncio.timeout(20):
        yield client, connections
        client.close()
        fake.close()
        await asyncio.gather(*connections)


GREETING = b"$11\r\nrun_id:abcd\r\n"


async def test_an_answer_may_come_in_pieces() -> None:
    async with scripted(GREETING, b"*2\r\n$5\r\nhe|llo\r|\n:4|2\r\n") as (client, _):
        assert await client.execute("X") == [b"hello", 42]


async def test_half_an_answer_counts_as_none() -> None:
    async with scripted(GREETING, b"$5\r\nhe!", GREETING, b"$5\r\nhello\r\n") as (client, made):
        results = await asyncio.gather(
            *(client.execute("GET", key) for key in "xy"), return_exceptions=True
        )
        assert [type(each) for each in results] == [RedisUnavailable] * 2
        assert await client.execute("GET", "x") == b"hello"
        assert len(made) == 2


@pytest.mark.parametrize(
    "answer", [b"nonsense\r\n", b"+OK\r\n+nobody asked\r\n"], ids=["not RESP", "one too many"]
)
async def test_a_connection_that_carries_nonsense_is_not_used_again(answer: bytes) -> None:
    async with scripted(GREETING, answer, GREETING, b"+OK\r\n") as (client, made):
        with suppress(RedisUnavailable):
            assert await client.execute("SET", "x", "1") == b"OK"
        await made[0]  # the client closed the connection
        assert await client.execute("SET", "x", "1") == b"OK"
        assert len(made) == 2


def ask(answer: bytes) -> object:
    """Return the result of a command to which the server gives this answer."""

    async def main() -> object:
        connection = _Connection()
        asked = connection.send(("GET", "key"))
        connection.data_received(answer)
        return await asked

    return asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-BUSY Redis is busy running a script.\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
        b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
    ],
    ids=lambda answer: answer.partition(b" ")[0].decode(),
)
def test_a_busy_or_loading_server_counts_as_unavailable(answer):
    with pytest.raises(RedisUnavailable):
        ask(answer)


@pytest.mark.parametrize("answer", [b"-ERR no\r\n", b"-MISCONF no disk\r\n", b"-NOAUTH no\r\n"])
def test_any_other_error_is_an_error(answer):
    with pytest.raises(RedisError):
        ask(answer)


@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        (b"nothing", b"-WRONGPASS invalid username-password pair\r\n"),
        (b"AUTH", b"-ERR DB index is out of range\r\n"),
    ],
    ids=["AUTH", "SELECT"],
)
def test_a_refused_log_in_closes_its_connection(accepted, refused):
    async def main() -> None:
        connections = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(asyncio.current_task())
            with suppress(ConnectionError):
                while command := await reader.read(1024):
                    writer.write(b"+OK\r\n" if accepted in command else refused)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = Redis(f"redis://:password@127.0.0.1:{port}/7")
        async with asyncio.timeout(30):
            for _ in range(20):
                with pytest.raises(RedisUnavailable, match=refused[1:].split()[0].decode()):
                    await client.execute("PING")
            await asyncio.gather(*connections)  # each ends once the client closes it
        server.close()

    asyncio.run(main())


@pytest.mark.parametrize("url", ["http://x", "unix:///run/redis.sock", "127.0.0.1:6379", ""])
def test_other_addresses_are_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="GATEWAY_REDIS_URL must begin with"):
        Redis(url)


def test_bytes_are_logged_as_text():
    script = (
        "import structlog; from gateway.telemetry import logs; logs.configure();"
        "structlog.get_logger().warning('booked', hold_id=b'a-hold', status=b'settled')"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    line = json.loads(ran.stderr)
    assert (line["hold_id"], line["status"]) == ("a-hold", "settled")
