"""The HTTP client on its own, with a server that obeys the protocol or misbehaves."""

import asyncio
import gc
import socket
import struct
import weakref
from contextlib import asynccontextmanager

import pytest

from devstack.servers import free_port
from gateway.network.client import HIGH_WATER, ConnectFailed, ExchangeFailed, HttpClient, Origin


@asynccontextmanager
async def serving(*answers: bytes | list[bytes], close: bool = False):
    """Serve the next bytes for each request, on any connection."""
    waiting, connections, requests = list(answers), [], []

    async def handle(reader, writer):
        connections.append(writer)
        try:
            while waiting:
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = waiting.pop(0)
                for part in [answer] if isinstance(answer, bytes) else answer:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.005)
                if close:
                    break
            if not close:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = HttpClient(connect_timeout=5)
    try:
        yield client, Origin.of(f"http://127.0.0.1:{port}/base"), connections, requests
    finally:
        client.close()
        server.close()
        for writer in connections:
            writer.close()
        await asyncio.sleep(0.01)


async def fetch(client: HttpClient, origin: Origin) -> tuple[int, bytes]:
    return await client.fetch(origin, "GET", "/x?y=1", [(b"a", b"b")], b"", 1 << 20)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_a_connection_is_used_again() -> None:
    async with serving(OK, OK, OK) as (client, origin, connections, requests):
        for _ in range(3):
            assert await fetch(client, origin) == (200, b"ok")
        assert len(connections) == 1
        assert requests[0].startswith(b"GET /base/x?y=1 HTTP/1.1\r\nhost: 127.0.0.1:")
        assert b"\r\na: b\r\n" in requests[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    ],
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(answer: bytes) -> None:
    async with serving(answer, OK) as (client, origin, connections, _):
        for _ in range(2):
            try:
                status, body = await fetch(client, origin)
            except ExchangeFailed:
                continue
            assert (status, body) == (200, b"ok")
        assert await fetch_or_fail(client, origin) != b"poison"
        assert len(connections) >= 2


async def fetch_or_fail(client: HttpClient, origin: Origin) -> bytes | None:
    try:
        async with asyncio.timeout(0.2):
            return (await fetch(client, origin))[1]
    except (ExchangeFailed, TimeoutError):
        return None


async def test_interim_answers_are_skipped() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    async with serving([b"HTTP/1.1 100 Continue\r\n\r\n", early, OK]) as (client, origin, _, _r):
        response = await client.open(origin, "GET", "/", [], b"")
        assert response.status == 200
        assert response.headers == [(b"content-length", b"2")]
        assert await response.read() == b"ok"
        assert await response.read() is None


async def test_a_body_may_end_with_the_connection() -> None:
    async with serving([b"HTTP/1.1 200 OK\r\n\r\nab", b"cd"], close=True) as (
        client,
        origin,
        _,
        _r,
    ):
        assert await fetch(client, origin) == (200, b"abcd")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
        b"nonsense",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000,
    ],
)
async def test_an_incomplete_answer_fails(answer: bytes) -> None:
    async with serving(answer, close=True) as (client, origin, _, _r):
        with pytest.raises(ExchangeFailed):
            await fetch(client, origin)


async def test_a_reset_body_without_a_length_is_incomplete() -> None:
    begun = asyncio.Event()

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await begun.wait()
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    client = HttpClient(connect_timeout=5)
    origin = Origin.of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    answer = await client.open(origin, "GET", "/", [], b"")
    assert await answer.read() == b"half"
    begun.set()
    with pytest.raises(ExchangeFailed):
        await answer.read()
    client.close()
    server.close()


async def test_a_failed_connection_has_its_own_error() -> None:
    with pytest.raises(ConnectFailed):
        await fetch(HttpClient(connect_timeout=1), Origin.of(f"http://127.0.0.1:{free_port()}"))


async def test_a_body_waits_until_it_is_read() -> None:
    size = 64 * HIGH_WATER
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size
    async with serving(head + b"x" * size) as (client, origin, _, _r):
        response = await client.open(origin, "GET", "/", [], b"")
        await asyncio.sleep(0.1)
        assert response._connection._buffered < 4 * HIGH_WATER
        read = 0
        while (chunk := await response.read()) is not None:
            read += len(chunk)
        assert read == size


async def test_trailers_do_not_count_as_headers() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
        b"x-checksum: 7\r\n\r\n"
    )
    async with serving(answer, OK) as (client, origin, connections, _):
        response = await client.open(origin, "GET", "/", [], b"")
        assert await response.read() == b"ok"
        assert await response.read() is None
        assert response.headers == [(b"transfer-encoding", b"chunked")]
        assert await fetch(client, origin) == (200, b"ok")
        assert len(connections) == 1


async def test_a_closed_connection_leaves_nothing_to_the_garbage_collector() -> None:
    async with serving(OK) as (client, origin, _, _r):
        gc.disable()
        try:
            response = await client.open(origin, "GET", "/", [], b"")
            closed = weakref.ref(response._connection)
            response.close()
            async with asyncio.timeout(5):
                while closed() is not None:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0)
        finally:
            gc.enable()


async def test_abandoning_an_answer_closes_its_connection() -> None:
    async with serving([OK[:-1], OK[-1:]], OK) as (client, origin, connections, _):
        response = await client.open(origin, "GET", "/", [], b"")
        response.close()
        assert await response.read() is None
        await fetch(client, origin)
        assert len(connections) == 2


@pytest.mark.parametrize("url", ["ftp://x", "x", "http://", ""])
def test_only_http_urls_are_accepted(url: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        Origin.of(url)


def test_the_host_header_has_a_port_only_if_it_is_not_the_default() -> None:
    assert Origin.of("https://api.example.com/v1/").authority == b"api.example.com"
    assert Origin.of("http://[::1]:81").authority == b"[::1]:81"
    assert Origin.of("https://x:80").authority == b"x:80"
