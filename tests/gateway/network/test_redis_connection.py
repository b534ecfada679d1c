"""How the gateway reads the answers of its Redis, and logs them."""

import asyncio
import json
import subprocess
import sys
from contextlib import suppress

import pytest

from gateway.network.redis_connection import Redis, RedisError, RedisUnavailable, _Connection


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


def test_bytes_are_logged_as_text():
    script = (
        "import structlog; from gateway.telemetry import logs; logs.configure();"
        "structlog.get_logger().warning('booked', hold_id=b'a-hold', status=b'settled')"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    line = json.loads(ran.stderr)
    assert (line["hold_id"], line["status"]) == ("a-hold", "settled")
