"""The relay to the gateway: which requests pass, what is passed on, and when it stops."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from coding_tasks.sandbox.door.admission import PathFilter
from coding_tasks.sandbox.door.exchange import Bounds
from coding_tasks.sandbox.door.relay import MOST_CONNECTIONS, Relay
from coding_tasks.sandbox.interface import Door
from tests.coding_tasks.sandbox.conftest import until

READ = b"GET /slack_app/v1 HTTP/1.1\r\nHost: x\r\n"
SEND = b"POST /slack_app/v1 HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /slack_app/v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "target",
    [
        "/slack_app/v1/messages", "/slack_app/v1/messages?beta=true&x=%2e%2e/",
        "/slack_app/v1/models", "/slack_app/v1/models/claude-sonnet-4-5@20250929:1",
        "/slack_app/a.b/..c/.d",
    ],
)  # fmt: skip
def test_plain_paths_of_the_product_pass(target):
    assert PathFilter("slack_app").allows(target.encode())


@pytest.mark.parametrize(
    "target",
    [
        "", "*", "/", "//", "/metrics", "/_ready", "/slack_app", "/slack_app/", "/slack_appx/v1",
        "slack_app/v1", "/SLACK_APP/v1", "/posthog_code/v1/messages",
        "/slack_app_routing/v1/messages", "/slack_app/../metrics", "/slack_app/..",
        "/slack_app/v1/..", "/slack_app/./v1", "/slack_app/.", "/slack_app/..?x",
        "/slack_app//v1", "//slack_app/v1", "/./slack_app/v1", "/x/../slack_app/v1",
        "/slack_app/%2e%2e/metrics", "/slack_app/%2E%2E/metrics", "/slack_app/.%2e/metrics",
        "/slack_app/v1%2f..%2f..%2fmetrics", "/slack_app%2fv1", "/%73lack_app/v1",
        "/slack_app/v1%00", "/slack_app/..\\metrics", "/slack_app\\..\\metrics",
        "/slack_app/v1;/../../metrics", "/slack_app/v1#/../metrics", "/slack_app/v1 HTTP/1.1",
        "/slack_app/v1\t", "/slack_app/v1\n", "/slack_app/ÿ", "http://127.0.0.1/slack_app/v1",
        "http://evil.example/slack_app/v1", "//evil.example/slack_app/v1", "evil.example:443",
    ],
)  # fmt: skip
def test_every_other_target_is_refused(target):
    assert not PathFilter("slack_app").allows(target.encode("latin-1"))


def test_a_product_is_not_a_pattern():
    assert not PathFilter("slack.app").allows(b"/slack_app/v1")


@dataclass
class Inside:
    """A connection as code in the sandbox has it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> bytes:
        """Send bytes; return all that comes back until the connection is closed."""
        self.writer.write(data)
        async with asyncio.timeout(10):
            return await self.reader.read()

    async def is_cut(self) -> bool:
        """Return whether the connection ends without an answer's last byte."""
        try:
            return not (await self.say(b"")).endswith(b"0\r\n\r\n")
        except OSError:
            return True

    async def ask(self, data: bytes) -> bytes:
        """Send a request; return its answer, and keep the connection."""
        self.writer.write(data)
        async with asyncio.timeout(10):
            return await self.reader.readuntil(b"0\r\n\r\n")


@asynccontextmanager
async def door_to(url: str, *, token: str = "", **bounds) -> AsyncIterator[tuple[Relay, int]]:
    """Open a door to the address; provide it and the port inside."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    relay = Relay(Door(url, "slack_app", token=token), Bounds(**bounds))
    relay.listen(listener)
    try:
        yield relay, port
    finally:
        relay.close()
        await relay.closed()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Inside]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Inside(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


@pytest_asyncio.fixture
async def inside(gateway) -> AsyncIterator[Inside]:
    async with door_to(gateway.url) as (_, port), connected(port) as connection:
        yield connection


async def test_requests_of_one_connection_are_passed_on_one_after_another(inside, gateway):
    post = (
        b"POST /slack_app/v1/messages HTTP/1.1\r\nHost: 127.0.0.1:8010\r\nContent-Length: 5\r\n"
        b"Authorization: Bearer t\r\n\r\nhello"
    )
    for _ in range(3):
        answer = await inside.ask(post)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"x-gateway: 1" in answer.lower()
    assert [body for *_, body in gateway.requests] == [b"hello"] * 3
    assert gateway.connections == 1


async def test_the_second_request_of_a_connection_is_checked_too(inside, gateway):
    await inside.ask(GET)
    answer = await inside.say(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403")
    assert gateway.targets == [b"/slack_app/v1/models"]


async def test_pipelined_requests_are_checked_each(inside, gateway):
    answer = await inside.say(GET + b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
    assert b"HTTP/1.1 403" in answer
    assert b"/metrics" not in gateway.targets
    assert len(gateway.targets) == 1


async def test_a_chunked_body_arrives(inside, gateway):
    head = b"POST /slack_app/v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    await inside.ask(head + b"3\r\nabc\r\n2;extension=1\r\nde\r\n0\r\nTrailer: x\r\n\r\n")
    _, _, headers, body = gateway.requests[0]
    assert body == b"abcde"
    assert headers[b"transfer-encoding"] == b"chunked"
    assert b"trailer" not in headers


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET http://10.0.0.1/slack_app/v1 HTTP/1.1\r\nHost: x\r\n\r\n", 403),
        (READ + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400),
        (READ + b"Upgrade: h2c\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 403),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (SEND + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (SEND + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400),
        (SEND + b"Content-Length: +4\r\n\r\nabcd", 400),
        (SEND + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (SEND + b"Transfer-Encoding : chunked\r\n\r\n", 400),
        (READ + b"Host: y\r\n\r\n", 400),
        (READ + b"X: a\0b\r\n\r\n", 400),
        (READ + b"Connection: host\r\n\r\n", 400),
        (READ + b"X: " + b"a" * 200_000 + b"\r\n\r\n", 431),
    ],
)  # fmt: skip
async def test_what_is_not_a_plain_request_is_refused(inside, gateway, request_, status):
    answer = await inside.say(request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b'"sandbox_door"' in answer
    assert gateway.requests == []


async def test_a_smuggled_request_stays_a_body(inside, gateway):
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /slack_app/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    await inside.ask(head + smuggled)
    assert [body for *_, body in gateway.requests] == [smuggled]


async def test_only_end_to_end_headers_are_passed_on(inside, gateway):
    await inside.ask(
        b"GET /slack_app/v1/models HTTP/1.1\r\nHost: admin.internal\r\n"
        b"Connection: keep-alive, x-one\r\n"
        b"X-One: 1\r\nX-Two: 2\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: a\r\n"
        b"X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nVia: 1.1 x\r\n"
        b"X-API-Key: t\r\n\r\n"
    )
    _, _, headers, _ = gateway.requests[0]
    assert headers == {
        b"host": f"127.0.0.1:{gateway.port}".encode(), b"x-two": b"2", b"x-api-key": b"t",
    }  # fmt: skip


async def test_headers_between_two_ends_are_taken_out_of_answers(inside):
    answer = (await inside.ask(GET)).lower()
    assert b"keep-alive" not in answer
    assert b"content-type: text/plain" in answer


async def test_an_answer_is_passed_on_while_it_comes(inside, gateway):
    inside.writer.write(b"POST /slack_app/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(10):
        assert await inside.reader.readuntil(b"first ")
    gateway.answering.set()
    async with asyncio.timeout(10):
        assert (await inside.reader.readuntil(b"0\r\n\r\n")).endswith(b"last\r\n0\r\n\r\n")


async def test_a_body_is_passed_on_while_it_comes(gateway):
    received = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"begin")
        received.set()
        await reader.readuntil(b"end")
        writer.write(b"HTTP/1.1 204 \r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with door_to(url) as (_, port), connected(port) as inside:
            inside.writer.write(
                b"POST /slack_app/x HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nbegin"
            )
            async with asyncio.timeout(10):
                await received.wait()
                inside.writer.write(b"end")
                assert (await inside.reader.readline()).startswith(b"HTTP/1.1 204")


async def test_the_agent_is_asked_to_continue(inside, gateway):
    inside.writer.write(SEND + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await inside.reader.readline()).startswith(b"HTTP/1.1 100")
    await inside.ask(b"abc")
    assert b"expect" not in gateway.requests[0][2]


async def test_closing_cuts_connections_at_once_and_accepts_no_more(gateway):
    async with door_to(gateway.url) as (relay, port), connected(port) as inside:
        inside.writer.write(b"GET /slack_app/slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: bool(gateway.requests), "the call")
        relay.close()
        assert await inside.is_cut()
        await until(lambda: gateway.connections == 0, "the end of the call")
        await relay.closed()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_a_socket_that_comes_after_the_end_is_closed(gateway):
    relay = Relay(gateway.door())
    relay.close()
    listener = socket.create_server(("127.0.0.1", 0))
    relay.listen(listener)
    assert listener.fileno() == -1


async def test_connections_are_bounded(gateway):
    async with door_to(gateway.url) as (relay, port):
        many = [
            await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_CONNECTIONS + 20)
        ]
        await until(lambda: len(relay._conversations) == MOST_CONNECTIONS, "the connections")
        reader, writer = many[-1]
        writer.write(GET)
        many[0][1].transport.abort()
        many[1][1].transport.abort()
        assert len(relay._conversations) == MOST_CONNECTIONS
        for _, other in many[2:-1]:
            other.transport.abort()
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.transport.abort()


async def test_a_body_that_is_too_large_cuts_the_connection(gateway):
    async with door_to(gateway.url, request=1_000) as (_, port), connected(port) as inside:
        head = b"POST /slack_app/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
        inside.writer.write(head + bytes(5_000))
        assert await inside.is_cut()
    assert gateway.requests == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Authorization: Bearer mine", 200), ("X-API-Key: mine", 200),
        ("Authorization: Bearer mine\r\nX-API-Key: mine", 200),
        ("", 401), ("Authorization: Bearer theirs", 401), ("X-API-Key: theirs", 401),
        ("Authorization: Bearer mine\r\nX-API-Key: theirs", 401),
        ("Authorization: Bearer mine\r\nAuthorization: Bearer mine", 401),
        ("Authorization: Bearer mine, Bearer theirs", 401), ("Authorization: mine", 401),
        ("Authorization: Bearer\r\nX-API-Key: theirs", 401), ("Authorization: Basic mine", 401),
    ],
)  # fmt: skip
async def test_only_the_runs_own_token_leaves(gateway, headers, status):
    given = f"{headers}\r\n" if headers else ""
    request = f"GET /slack_app/v1/models HTTP/1.1\r\nHost: x\r\n{given}Connection: close\r\n\r\n"
    async with door_to(gateway.url, token="mine") as (_, port), connected(port) as inside:
        assert (await inside.say(request.encode())).startswith(f"HTTP/1.1 {status}".encode())
    assert len(gateway.requests) == (status == 200)


async def test_an_idle_connection_is_closed(gateway):
    async with door_to(gateway.url, head_within=0.05) as (_, port), connected(port) as inside:
        inside.writer.write(b"GET /slack_app/x HTTP/1.1\r\nHo")
        assert await inside.is_cut()


async def test_a_gateway_that_is_down_is_a_bad_gateway():
    async with door_to("http://127.0.0.1:1") as (_, port), connected(port) as inside:
        assert (await inside.say(GET)).startswith(b"HTTP/1.1 502")


async def test_a_gateway_that_breaks_off_is_a_bad_gateway():
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with door_to(url) as (_, port), connected(port) as inside:
            assert (await inside.say(GET)).startswith(b"HTTP/1.1 502")


async def test_a_gateway_below_a_path_and_with_a_name_is_asked_by_both(gateway):
    url = f"http://localhost:{gateway.port}/llm/"
    async with door_to(url) as (_, port), connected(port) as inside:
        await inside.ask(GET)
    _, target, headers, _ = gateway.requests[0]
    assert target == b"/llm/slack_app/v1/models"
    assert headers[b"host"] == f"localhost:{gateway.port}".encode()


@pytest.mark.parametrize("url", ["", "gateway:8100", "ftp://gateway/", "http://"])
def test_an_invalid_address_is_refused(url):
    with pytest.raises(ValueError):
        Relay(Door(url, "slack_app"))


@asynccontextmanager
async def refusing_gateway() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Run a gateway that refuses calls of /refused, and ends answers once the event is set."""
    may_end = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).split()[1]
        if target.endswith(b"/refused"):
            head = b"HTTP/1.1 429 No\r\nx-tollgate-reason: billable_credits\r\n"
        else:
            head = b"HTTP/1.1 200 OK\r\n"
        writer.write(head + b"content-length: 2\r\n\r\n")
        if not target.endswith(b"/at-once"):
            await may_end.wait()
        writer.write(b"{}")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", may_end


async def test_a_refusal_is_noted_although_an_earlier_answer_ends_later():
    async with refusing_gateway() as (url, may_end), door_to(url) as (relay, port):
        async with connected(port) as earlier, connected(port) as later:
            earlier.writer.write(GET.replace(b"models", b"long"))
            await earlier.reader.readuntil(b"\r\n\r\n")
            later.writer.write(GET.replace(b"models", b"refused"))
            await later.reader.readuntil(b"\r\n\r\n")
            may_end.set()
            for connection in (later, earlier):
                await connection.reader.readuntil(b"{}")
        assert relay._refusals.last is not None
        assert (relay._refusals.last.status, relay._refusals.last.body) == (429, b"{}")


async def test_a_refusal_is_noted_although_nobody_waits_for_its_end():
    async with refusing_gateway() as (url, may_end), door_to(url) as (relay, port):
        async with connected(port) as inside:
            inside.writer.write(GET.replace(b"models", b"refused"))
            await inside.reader.readuntil(b"\r\n\r\n")
        may_end.set()
        await until(lambda: not relay._conversations, "the end of the connection")
        assert relay._refusals.last is not None


async def test_a_refusal_is_forgotten_when_a_later_call_passes():
    async with refusing_gateway() as (url, may_end), door_to(url) as (relay, port):
        may_end.set()
        for target in (b"refused", b"at-once"):
            async with connected(port) as inside:
                inside.writer.write(GET.replace(b"models", target))
                await inside.reader.readuntil(b"{}")
        assert relay._refusals.last is None
