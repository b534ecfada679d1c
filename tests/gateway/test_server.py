"""The HTTP server on its own: what clients may send, in which order, and when they go."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gateway.incoming import HIGH_WATER, CallerLeft, Incoming
from tests.conftest import wait_until
from tests.gateway.threads import served_by

MOST = 1 << 20


async def echo(request: Incoming) -> None:
    """Answer with method, path, query and body; in two parts where the path says so."""
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
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection,
    ):
        yield connection


def received(connection: socket.socket, until: bytes | None = None) -> bytes:
    """Return what comes, up to some bytes or to the end of the connection."""
    got = b""
    while until is None or until not in got:
        data = connection.recv(65536)
        if not data:
            assert until is None, got
            break
        got += data
    return got


def test_requests_sent_without_waiting_are_answered_in_order() -> None:
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


def test_an_old_client_gets_no_chunks_and_the_end_of_the_connection() -> None:
    with connected(echo) as connection:
        connection.sendall(b"GET /parts HTTP/1.0\r\nhost: x\r\n\r\n")
        assert received(connection) == (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nGET /parts  ")


def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    with connected(echo) as connection:
        connection.sendall(
            b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
        assert received(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hi")
        assert received(connection, b"hi").endswith(b"\r\n\r\nPOST /  hi")


def test_what_nobody_reads_of_a_body_is_dropped_and_the_next_request_answered() -> None:
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


def test_nonsense_behind_a_request_does_not_spoil_its_answer() -> None:
    release = threading.Event()

    async def serve(request: Incoming) -> None:
        await asyncio.to_thread(release.wait, 5)
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
def test_what_is_no_request_is_refused(sent: bytes, status: bytes) -> None:
    with connected(echo) as connection:
        connection.sendall(sent)
        assert received(connection).startswith(b"HTTP/1.1 " + status)


def test_who_leaves_within_a_body_is_noticed() -> None:
    left = threading.Event()

    async def serve(request: Incoming) -> None:
        try:
            await request.body(MOST)
        except CallerLeft:
            left.set()

    with connected(serve) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf")
        connection.close()
        assert left.wait(5)


def test_an_answer_that_fails_ends_the_connection() -> None:
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


def test_a_server_that_stops_finishes_what_it_answers() -> None:
    begun, release = threading.Event(), threading.Event()

    async def serve(request: Incoming) -> None:
        begun.set()
        await asyncio.to_thread(release.wait, 5)
        await echo(request)

    with served_by(serve) as server:
        address = ("127.0.0.1", server.port)
        with (
            socket.create_connection(address, timeout=10) as idle,
            socket.create_connection(address, timeout=10) as busy,
        ):
            busy.sendall(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
            assert begun.wait(5)
            server.server.should_exit = True
            assert received(idle) == b""
            release.set()
            answer = received(busy)
        assert answer.endswith(b"connection: close\r\n\r\nGET /a  ")
        wait_until(lambda: not server.server.server_state.tasks, what="the end of all requests")
