"""Callers that leave and callers that are slow."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace

import psutil
import pytest

from devstack.servers import free_port
from gateway.network import server
from gateway.network.incoming import Incoming
from tests.conftest import wait_until
from tests.gateway.conftest import World, gateway_program, messages_body, serving, world_of
from tests.gateway.fake_provider import SSE_HEADERS, Script, json_script, message, messages_stream
from tests.gateway.threads import served_by


def connect(world: World, token: str, body: dict) -> socket.socket:
    """Send a call over a raw connection; return the connection."""
    content = json.dumps(body).encode()
    head = (
        f"POST /slack_app/v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", world.port))
    connection.sendall(head.encode() + content)
    return connection


@pytest.fixture(scope="module")
def impatient() -> Iterator[World]:
    """A gateway that reads on for only a moment after the caller left."""
    with world_of(GATEWAY_DRAIN_TIMEOUT="0.3") as world:
        yield world


@pytest.mark.case("G12")
def test_leaving_a_stream_costs_what_the_provider_charges(world: World) -> None:
    chunks = messages_stream(pieces=20)
    world.provider.script = lambda _: Script(200, SSE_HEADERS, chunks, between=0.02)
    project = world.tollgate.project(credits=100)
    with connect(world, world.tollgate.token(project), messages_body(stream=True)) as connection:
        received = b""
        while received.count(b"text_delta") < 3:
            received += connection.recv(4096)
    [event] = world.booked(project)
    assert event["debited_micro"] == 72_000
    assert event["properties"]["$ai_usage_estimated"] is False
    assert world.settled(project)["held"] == 0


@pytest.mark.parametrize("hold_after", [0, 6], ids=["nothing", "the visible answer"])
def test_leaving_a_stream_that_does_not_end_in_time_costs_the_bound(
    impatient: World, hold_after: int
) -> None:
    release = threading.Event()
    impatient.provider.script = lambda _: Script(
        200, SSE_HEADERS, messages_stream(), hold_after=hold_after, release=release
    )
    project = impatient.tollgate.project(credits=100)
    token, before = impatient.tollgate.token(project), len(impatient.provider.requests)
    with connect(impatient, token, messages_body(stream=True)) as connection:
        wait_until(lambda: len(impatient.provider.requests) > before, what="the call")
        received = b""
        while received.count(b"text_delta") < min(hold_after, 3):
            received += connection.recv(4096)
        held = impatient.account(project)["held"]
    [event] = impatient.booked(project)
    release.set()
    assert event["debited_micro"] == held > 0
    assert event["properties"]["$ai_usage_estimated"] is True


def test_the_provider_is_not_called_if_the_caller_left_before(world: World) -> None:
    project = world.tollgate.project(credits=100)
    token, before = world.tollgate.token(project), len(world.provider.requests)
    ended = world.metric("tollgate_gateway_added_seconds_count")
    with world.tollgate.hesitating(), connect(world, token, messages_body()):
        wait_until(lambda: world.tollgate.asked_about[token], what="the call being under way")
    wait_until(
        lambda: world.metric("tollgate_gateway_added_seconds_count") > ended,
        what="the end of the call",
    )
    wait_until(lambda: world.account(project)["held"] == 0, what="the hold being given back")
    assert len(world.provider.requests) == before
    # No call was made, so it has no event: the only event is that of the next call.
    assert world.post(token, body=messages_body()).status_code == 200
    [event] = world.booked(project)
    assert event["debited_micro"] > 0
    assert world.settled(project)["held"] == 0


def test_leaving_an_unstreamed_answer_books_what_the_provider_charges(world: World) -> None:
    gate = threading.Event()

    def script(_: object) -> Script:
        answer = json_script(message())
        answer.gate = gate
        return answer

    world.provider.script = script
    project = world.tollgate.project(credits=100)
    before = len(world.provider.requests)
    connection = connect(world, world.tollgate.token(project), messages_body())
    wait_until(lambda: len(world.provider.requests) > before, what="the call being under way")
    connection.close()
    gate.set()
    [event] = world.booked(project)
    assert event["debited_micro"] == 72_000
    assert event["properties"]["$ai_usage_estimated"] is False


def test_a_slow_reader_slows_the_provider_down_instead_of_filling_memory(world: World) -> None:
    piece = b'data: {"type":"ping","padding":"' + b"x" * 100_000 + b'"}\n\n'
    count = 400

    answer = Script(200, SSE_HEADERS, [*messages_stream()[:2], *[piece] * count])
    world.provider.script = lambda _: answer
    project = world.tollgate.project(credits=100)
    process = gateway_process(world)
    before = process.memory_info().rss
    connection = connect(world, world.tollgate.token(project), messages_body(stream=True))
    connection.recv(1000)
    peak = 0
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        peak = max(peak, process.memory_info().rss)
    assert not answer.served, "the provider was read to the end"
    assert peak - before < 16_000_000
    connection.close()
    world.booked(project)


def gateway_process(world: World) -> psutil.Process:
    """Return the Python process behind /usr/bin/env."""
    return psutil.Process(world.process.popen.pid)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-many: a\r\n" * 10_000 + b"\r\n", b"431"),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", b"431"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
    ids=["one long header", "many headers", "long path", "no HTTP"],
)
def test_oversized_heads_are_refused(world, request_bytes, status) -> None:
    with socket.create_connection(("127.0.0.1", world.port), timeout=10) as connection:
        with suppress(ConnectionError):  # it may be refused before everything is sent
            connection.sendall(request_bytes)
        assert status in connection.recv(200).split(b"\r\n")[0]


@pytest.mark.parametrize(
    ("sent", "status_line"),
    [(b"", b""), (b"GET / HTTP/1.1\r\nhost: x\r\n", b"HTTP/1.1 408 Request Timeout")],
    ids=["nothing", "half a head"],
)
def test_a_slow_head_gets_a_408_only_if_a_request_began(
    monkeypatch: pytest.MonkeyPatch, sent: bytes, status_line: bytes
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)

    async def serve(request: Incoming) -> None:
        raise AssertionError("no request was made")

    with (
        served_by(serve) as front,
        socket.create_connection(("127.0.0.1", front.port), timeout=10) as connection,
    ):
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(1000), b""))
    assert received.split(b"\r\n")[0] == status_line


@pytest.mark.parametrize(
    "trailers", [b"x-many: a\r\n" * 50_000, b"x-long: " + b"a" * 500_000], ids=["many", "long"]
)
def test_endless_trailers_are_neither_kept_nor_read(world: World, trailers: bytes) -> None:
    head = b"POST /slack_app/v1/messages HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", world.port), timeout=10) as connection:
        connection.sendall(head + b"2\r\n{}\r\n0\r\n")
        assert b"401" in connection.recv(200).split(b"\r\n")[0]
        with pytest.raises(ConnectionError):
            connection.sendall(trailers * 50)


def test_an_answered_request_has_limited_time_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "LINGER_SECONDS", 0.2)

    async def serve(request: Incoming) -> None:
        request.start(429, [])
        request.end()

    with (
        served_by(serve) as front,
        socket.create_connection(("127.0.0.1", front.port), timeout=10) as connection,
    ):
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
        received = b"".join(iter(lambda: connection.recv(1000), b""))
    assert received.startswith(b"HTTP/1.1 429")


def test_idle_connections_leave_file_descriptors_for_calls(world: World, tmp_path) -> None:
    """A shell often sets a lower limit of open files than the process may use."""
    allowed, port = 100, free_port()
    address = world.redis.connection_pool.connection_kwargs
    program = gateway_program(
        port,
        f"redis://127.0.0.1:{address['port']}/0",
        world.tollgate.url,
        world.provider.url,
    )
    shell = ["/bin/sh", "-c", f'ulimit -S -n {allowed}; exec "$@"', "sh"]
    program = replace(program, argv=[*shell, *program.argv])
    with (
        serving(program, tmp_path / "gateway.log"),
        world.at(f"http://127.0.0.1:{port}") as crowded,
        ExitStack() as idle,
    ):
        for _ in range(2 * allowed):
            idle.enter_context(socket.create_connection(("127.0.0.1", port)))
        token = world.tollgate.token(world.tollgate.project(credits=100))
        assert crowded.post(token).status_code == 200
