"""How the gateway reads the answers of its Redis, and logs what Redis returned."""

import asyncio
import json
import subprocess
import sys

import pytest

from gateway.network.redis_connection import RedisError, RedisUnavailable, _Connection


def ask(answer: bytes) -> object:
    """Return what a command gets that a server answers so."""

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
def test_a_server_that_will_answer_in_a_while_is_one_that_does_not_answer(answer):
    with pytest.raises(RedisUnavailable):
        ask(answer)


@pytest.mark.parametrize("answer", [b"-ERR no\r\n", b"-MISCONF no disk\r\n", b"-NOAUTH no\r\n"])
def test_any_other_error_is_an_error(answer):
    with pytest.raises(RedisError):
        ask(answer)


def test_bytes_are_logged_as_text():
    script = (
        "import structlog; from gateway import logs; logs.configure();"
        "structlog.get_logger().warning('booked', hold_id=b'a-hold', status=b'settled')"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    line = json.loads(ran.stderr)
    assert (line["hold_id"], line["status"]) == ("a-hold", "settled")
