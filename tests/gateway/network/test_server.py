"""The HTTP server on its own: what clients may send, in which order, and how they may leave."""

import asyncio
import gc
import socket
import struct
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import REGISTRY

from gateway.network.incoming import HIGH_WATER, CallerLeft, Incoming
from gateway.network.server import MAX_HEADERS, MOST_WAITING
from tests.conftest import wait_until
from tests.gateway.threads import served_by

MOST = 1 << 20


async def echo(request: Incoming) -> None:
    """Answer with method, path, query and body, in two parts for some paths."""
    body = await request.body(MOST)
    answer = f"{request.method} {request.path} {request.query.decode()} ".encode() + body[:50]
    if "parts" in request.path:
        request.start(200, [])
        request.write(answer[:5])
        request.end(answer[5:])
    else:
        request.start(200, [(b"content-length", b"%d" % len(answer))])
        request.end(answer)


@contextmanager
def connected(serve: Callable) -> Iterator[socket.socket]:
    with (
        served_by(serve) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection,
    ):
        yield connection


def received(connection: socket.socket, until: bytes | None = None) -> bytes:
    """Return what comes until these bytes, or until the end of the connection."""
    got = bytearray()
    while until is None or until not in got:
        data = connection.recv(65536)
        if not data:
            assert until is None, got
            break
        got += data
    return bytes(got)


def test_pipelined_requests_are_answered_in_order() -> None:
    with connected(echo) as connection:
        connection.sendall(
            b"POST /a?b=c HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none"
            b"POST /parts HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            b"3\r\ntwo\r\n0\r\n\r\n"
            b"HEAD /h HTTP/1.1\r\nhost: x\r\n\r\n"
            b"GET /%C3%A4%20/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        first, second, third, fourth = received(connection).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert first == b"content-length: 15\r\n\r\nPOST /a b=c one"
    assert second == (
        b"transfer-encoding: chunked\r\n\r\n5\r\nPOST \r\nb\r\n/parts  two\r\n0\r\n\r\n"
    )
    assert third == b"content-length: 9\r\n\r\n"
    assert fourth == b"content-length: 11\r\nconnection: close\r\n\r\nGET /\xc3\xa4 /  "


def test_an_http_1_0_client_gets_no_chunks_and_a_closed_connection() -> None:
    with connected(echo) as connection:
        connection.sendall(b"GET /parts HTTP/1.0\r\nhost: x\r\n\r\n")
        assert received(connection) == (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nGET /parts  ")


def test_a_client_that_expects_it_gets_100_continue() -> None:
    with connected(echo) as connection:
        connection.sendall(
            b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
        assert received(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hi")
        assert received(connection, b"hi").endswith(b"\r\n\r\nPOST /  hi")


def test_an_http_1_0_client_gets_no_100_continue() -> None:
    waits = threading.Event()

    async def serve(request: Incoming) -> None:
        waits.set()
        await echo(request)

    with connected(serve) as connection:
        connection.sendall(
            b"POST / HTTP/1.0\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
        assert waits.wait(5)
        connection.sendall(b"hi")
        assert received(connection).startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_unread_body_is_dropped_and_the_next_request_answered() -> None:
    async def serve(request: Incoming) -> None:
        if request.path == "/unread":
            await asyncio.sleep(0.05)
            request.start(413, [(b"content-length", b"0")])
            request.end()
        else:
            await echo(request)

    body = b"x" * (4 * HIGH_WATER)
    with connected(serve) as connection:
        connection.sendall(
            b"POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
            + body
            + b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi"
        )
        assert b"POST /read  hi" in received(connection, b"hi")


def test_nonsense_after_a_request_does_not_spoil_its_answer() -> None:
    release = threading.Event()

    async def serve(request: Incoming) -> None:
        await asyncio.to_thread(release.wait, 60)
        await echo(request)

    with connected(serve) as connection:
        connection.sendall(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\nnonsense\r\n\r\n")
        release.set()
        assert received(connection) == (
            b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\nGET /a  "
        )


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
    ],
    ids=["no chunk", "two lengths", "no text"],
)
def test_malformed_requests_are_refused(sent: bytes, status: bytes) -> None:
    with connected(echo) as connection:
        before = refused("request_malformed")
        connection.sendall(sent)
        assert received(connection).startswith(b"HTTP/1.1 " + status)
        assert refused("request_malformed") == before + 1


def refused(reason: str) -> float:
    """Return how many requests the server itself refused for this reason."""
    labels = {"product": "", "reason": reason}
    return REGISTRY.get_sample_value("tollgate_gateway_refusals_total", labels) or 0


@pytest.mark.parametrize("end", [b"\r\n", b""], ids=["whole", "half"])
def test_too_many_headers_are_refused(end: bytes) -> None:
    with connected(echo) as connection:
        connection.sendall(
            b"GET /a HTTP/1.1\r\nhost:\r\n" + b"a:\r\n" * (MAX_HEADERS - 1) + b"\r\n"
        )
        assert received(connection, b"GET /a  ").startswith(b"HTTP/1.1 200 ")
        before = refused("head_too_large")
        connection.sendall(b"GET /b HTTP/1.1\r\n" + b"a:\r\n" * (MAX_HEADERS + 2) + end)
        assert received(connection).startswith(b"HTTP/1.1 431 ")
        assert refused("head_too_large") == before + 1


def test_a_client_that_leaves_during_its_body_is_noticed() -> None:
    left = threading.Event()

    async def serve(request: Incoming) -> None:
        try:
            await request.body(MOST)
        except CallerLeft:
            left.set()

    with connected(serve) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf")
        connection.close()
        assert left.wait(60)


def test_a_failing_answer_closes_the_connection() -> None:
    async def serve(request: Incoming) -> None:
        if request.path == "/late":
            request.start(200, [])
            request.write(b"half")
        raise RuntimeError("the application failed")

    with connected(serve) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 500 ")
    with connected(serve) as connection:
        connection.sendall(b"GET /late HTTP/1.1\r\nhost: x\r\n\r\n")
        assert received(connection).endswith(b"\r\n\r\n4\r\nhalf\r\n")


def test_a_stopping_server_finishes_its_answers() -> None:
    begun, release = threading.Event(), threading.Event()

    async def serve(request: Incoming) -> None:
        begun.set()
        await asyncio.to_thread(release.wait, 60)
        await echo(request)

    with served_by(serve) as server:
        address = ("127.0.0.1", server.port)
        with (
            socket.create_connection(address, timeout=60) as idle,
            socket.create_connection(address, timeout=60) as busy,
        ):
            busy.sendall(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
            assert begun.wait(60)
            server.server.should_exit = True
            assert received(idle) == b""
            release.set()
            answer = received(busy)
        assert answer.endswith(b"connection: close\r\n\r\nGET /a  ")
        wait_until(lambda: not server.server.server_state.tasks, what="the end of all requests")


def test_a_client_that_does_not_read_its_answers_gets_no_more() -> None:
    begun: list[bool] = []

    async def serve(request: Incoming) -> None:
        begun.append(request.congested)
        request.start(200, [(b"content-length", b"1048576")])
        request.end(b"x" * (1 << 20))

    with (
        served_by(serve) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 40)
        connections = server.server.server_state.connections
        wait_until(lambda: any(each.paused for each in list(connections)), what="too many answers")
        got = 0
        while got < 40 << 20:
            got += len(connection.recv(1 << 20))
    assert len(begun) == 40
    assert not any(begun)


def test_no_more_requests_are_read_than_are_answered() -> None:
    depths: list[int] = []

    async def serve(request: Incoming) -> None:
        depths.append(len(request._wire._queue))  # type: ignore[attr-defined]
        await echo(request)

    count = 1_000
    with connected(serve) as connection:
        request = b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"x" * 4_000 + b"\r\n\r\n"
        sender = threading.Thread(target=lambda: connection.sendall(request * count))
        sender.start()
        got = b""
        while got.count(b"HTTP/1.1 200 OK") < count:
            got += connection.recv(1 << 20)
        sender.join()
    assert len(depths) == count
    assert max(depths) < 70  # as many as arrive in one piece, of at most 256 KB


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
        b"content-length: 0\r\n\r\n",
    ],
    ids=["plain", "upgrade"],
)
def test_only_the_first_of_very_many_pipelined_requests_are_answered(
    request_bytes: bytes,
) -> None:
    depths: list[int] = []

    async def serve(request: Incoming) -> None:
        depths.append(len(request._wire._queue))  # type: ignore[attr-defined]
        await echo(request)

    with connected(serve) as connection:
        connection.sendall(request_bytes * 40_000)  # more than fits into the buffers
        answers = received(connection).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert MOST_WAITING < len(answers) < 40_000
    assert max(depths) <= MOST_WAITING
    assert b"connection: close" in answers[-1]
    assert not any(b"connection: close" in answer for answer in answers[:-1])


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HT",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody" * 3,
        b"nonsense\r\n\r\n",
    ],
    ids=["answered", "half a head", "half a body", "one that waits", "no request"],
)
def test_a_closed_connection_leaves_nothing_to_the_garbage_collector(sent: bytes) -> None:
    begun, closed_by_client = threading.Event(), threading.Event()

    async def serve(request: Incoming) -> None:
        begun.set()
        if b"body" in sent:  # otherwise no task would wait when the connection is lost
            await asyncio.to_thread(closed_by_client.wait, 60)
        await echo(request)

    with served_by(serve) as server:
        connections = server.server.server_state.connections
        gc.disable()
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
                wait_until(lambda: connections, what="the connection")
                closed = weakref.ref(next(iter(connections)))
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(sent)
                if sent.startswith(b"nonsense"):
                    received(connection)
                else:
                    assert begun.wait(60)
            closed_by_client.set()
            wait_until(lambda: closed() is None, what="its end")
        finally:
            gc.enable()


def test_an_answer_before_the_end_of_a_request_is_not_lost_when_the_connection_closes() -> None:
    async def serve(request: Incoming) -> None:
        request.start(413, [(b"content-length", b"0")])
        request.end()

    body = b"x" * (16 * HIGH_WATER)
    with connected(serve) as connection:
        connection.sendall(
            b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            % len(body)
        )
        connection.sendall(body)
        assert received(connection).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.network.server.LINGER_SECONDS", 0.2)

    begun = threading.Event()

    async def serve(request: Incoming) -> None:
        begun.set()
        request.start(200, [])
        request.end(b"x" * (64 << 20))

    with (
        served_by(serve) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert begun.wait(60)
        wait_until(lambda: not server.server.server_state.connections, what="its end")


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
@pytest.mark.parametrize(
    ("length", "body"),
    [(b"content-length: 2", b"hi"), (b"transfer-encoding: chunked", b"2\r\nhi\r\n0\r\n\r\n")],
    ids=["whole", "chunked"],
)
def test_an_unsupported_upgrade_does_not_lose_the_body(
    length: bytes, body: bytes, apart: bool
) -> None:
    head = (
        b"POST /u HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n"
        b"http2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n" + length + b"\r\n\r\n"
    )
    with connected(echo) as connection:
        if apart:
            connection.sendall(head)
            body = body + b"GET /next HTTP/1.1\r\nhost: x\r\n\r\n"
            connection.sendall(body)
        else:
            connection.sendall(head + body + b"GET /next HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"POST /u  hi" in received(connection, b"GET /next  ")


def test_a_body_in_tiny_parts_takes_little_memory() -> None:
    parts: list[int] = []

    async def serve(request: Incoming) -> None:
        body = await request.body(MOST)
        parts.append(len(body))
        request.start(200, [(b"content-length", b"0")])
        request.end()

    size = MOST // 4  # tracing allocations is slow
    sent = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    sent += b"2\r\nhi\r\n" * (size // 2) + b"0\r\n\r\n"
    with connected(serve) as connection:
        tracemalloc.start()
        connection.sendall(sent)
        received(connection, b"\r\n\r\n")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert parts == [size]
    assert peak < 8 * size  # includes what is read at once


def test_an_invalid_target_gets_400() -> None:
    with connected(echo) as connection:
        connection.sendall(b"GET http:/// HTTP/1.1\r\nhost: x\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 400 ")


def test_connect_makes_no_tunnel() -> None:
    with connected(echo) as connection:
        connection.sendall(b"CONNECT /x HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nGET /")
        assert received(connection).endswith(b"\r\nconnection: close\r\n\r\nCONNECT /x  ")
