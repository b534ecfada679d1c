"""How the gateway connects: addresses of both families, TLS, and an egress proxy."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from environs import EnvValidationError

from devstack.servers import free_port
from gateway import settings
from gateway.network import dialing
from gateway.network.client import ConnectFailed, HttpClient, Origin
from gateway.network.dialing import EgressProxy
from tests.gateway.certificates import certificate, server_context

PATIENCE = 30.0
Main = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    """Return a function that runs a coroutine on asyncio's event loop, or the gateway's uvloop."""

    def start(main: Main) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(main(), PATIENCE))

    return start


@asynccontextmanager
async def web_server(
    host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answer every request with `ok`; yield the port and the heads of the requests."""
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(handle, host, 0, ssl=tls)
    yield server.sockets[0].getsockname()[1], heads
    server.close()


async def get(url: str, egress: EgressProxy | None = None, patience: float = PATIENCE) -> bytes:
    client = HttpClient(patience, egress)
    try:
        return (await client.fetch(Origin.of(url), "GET", "/x", [], b"", 100))[1]
    finally:
        client.close()


@pytest.fixture
def resolve_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that lets every name have these addresses, in this order."""

    def replace(*addresses: str) -> None:
        async def resolve(host: str, port: int) -> list[tuple[int, str]]:
            return [
                (socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in addresses
            ]

        monkeypatch.setattr(dialing, "resolve", resolve)

    return replace


# --- addresses ------------------------------------------------------------------------------------


def test_an_ipv6_address_can_be_used(run) -> None:
    async def main() -> None:
        async with web_server("::1") as (port, heads):
            assert await get(f"http://[::1]:{port}") == b"ok"
            assert b"host: [::1]:%d\r\n" % port in heads[0]

    run(main)


def test_another_address_is_used_if_the_first_refuses(run, resolve_to) -> None:
    async def main() -> None:
        async with web_server("127.0.0.1") as (port, _):
            resolve_to("::1", "127.0.0.1")
            assert await get(f"http://both.example:{port}") == b"ok"

    run(main)


@contextmanager
def deaf_server() -> Iterator[int]:
    """Yield a port of ::1 where connections are neither accepted nor refused.

    Nobody else uses the same port of 127.0.0.1.
    """
    port = free_port()
    with closing(socket.create_server(("::1", port), family=socket.AF_INET6, backlog=0)):
        crowd = [socket.socket(socket.AF_INET6) for _ in range(4)]  # fills its queue
        for each in crowd:
            each.setblocking(False)
            each.connect_ex(("::1", port))
        yield port
        for each in crowd:
            each.close()


def test_another_address_is_used_if_the_first_is_silent(run, resolve_to) -> None:
    async def main() -> None:
        with (
            deaf_server() as port,
            closing(await asyncio.start_server(_ok, "127.0.0.1", port)),
        ):
            resolve_to("::1", "127.0.0.1")
            assert await get(f"http://both.example:{port}", patience=10) == b"ok"

    run(main)


def test_attempts_that_are_not_needed_any_more_end(run, resolve_to) -> None:
    async def main() -> None:
        with (
            deaf_server() as port,
            closing(await asyncio.start_server(_ok, "127.0.0.1", port)),
        ):
            resolve_to("::1", "127.0.0.1")
            before = asyncio.all_tasks()
            made = await dialing.connect(_Kept, "both.example", port, None)
            while any(  # noqa: ASYNC110 - until they have ended
                "create_connection" in repr(each) for each in asyncio.all_tasks() - before
            ):
                await asyncio.sleep(0.001)
            assert not made.transport.is_closing()
            made.transport.abort()

    run(main)


def test_a_connection_that_was_made_too_late_is_closed(run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with web_server() as (port, _):
            late = loop.create_task(loop.create_connection(_Kept, "127.0.0.1", port))
            _, made = await late
            dialing._abandon(late)
            assert made.transport.is_closing()

    run(main)


async def _ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await reader.read()
    writer.close()


class _Kept(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


def test_a_host_without_a_server_fails_to_connect(run) -> None:
    async def main() -> None:
        with pytest.raises(ConnectFailed, match=r"[Rr]efused|Connect call failed"):
            await get(f"http://localhost:{free_port()}")

    run(main)


# --- TLS ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "is_trusted", "works"),
    [("localhost", True, True), ("localhost", False, False), ("provider.example", True, False)],
    ids=["trusted", "unknown issuer", "another name"],
)
def test_the_server_certificate_is_verified(
    run, tmp_path: Path, monkeypatch, named: str, is_trusted: bool, works: bool
) -> None:
    pem = certificate(tmp_path, named)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))

    async def main() -> None:
        async with web_server(tls=server_context(pem)) as (port, _):
            if works:
                assert await get(f"https://localhost:{port}") == b"ok"
            else:
                with pytest.raises(ConnectFailed, match="certificate verify failed"):
                    await get(f"https://localhost:{port}")

    run(main)


# --- the proxy ------------------------------------------------------------------------------------


@asynccontextmanager
async def proxy(
    answer: bytes = b"HTTP/1.1 200 Go ahead\r\n\r\n",
) -> AsyncIterator[tuple[int, list]]:
    """Tunnel to this machine if the answer is 200; yield the port and the heads of the requests."""
    heads: list[bytes] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    handled: list[asyncio.Task[None] | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handled.append(asyncio.current_task())
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        port = int(heads[-1].split()[1].rpartition(b":")[2])
        with suppress(ConnectionError):
            for part in answer.partition(b" "):  # in pieces
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
        if b" 200 " in answer and answer.endswith(b"\r\n\r\n"):
            inner = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pipe(reader, inner[1]), pipe(inner[0], writer))
            return
        if not answer:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], heads
    server.close()
    await asyncio.gather(*(each for each in handled if each is not None))


def test_tls_goes_through_the_proxy(run, tmp_path: Path, monkeypatch) -> None:
    pem = certificate(tmp_path, "provider.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))

    async def main() -> None:
        async with web_server(tls=server_context(pem)) as (port, seen), proxy() as (gate, asked):
            egress = EgressProxy.of(f"http://me:p%40ss@127.0.0.1:{gate}", "")
            client = HttpClient(PATIENCE, egress)
            origin = Origin.of(f"https://provider.example:{port}")
            for _ in range(2):
                assert await client.fetch(origin, "GET", "/x", [], b"", 100) == (200, b"ok")
            client.close()
            authority = b"provider.example:%d" % port
            assert asked == [
                b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n"
                b"proxy-authorization: Basic bWU6cEBzcw==\r\n\r\n" % (authority, authority)
            ]
            assert len(seen) == 2
            assert b"proxy-authorization" not in seen[0]

    run(main)


@pytest.mark.parametrize(
    ("url", "exempt"),
    [("https://localhost", "localhost"), ("https://localhost", "*"), ("http://localhost", "")],
    ids=["exempt", "all exempt", "no TLS"],
)
def test_other_connections_are_direct(run, tmp_path, monkeypatch, url: str, exempt: str) -> None:
    pem = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))

    async def main() -> None:
        tls = server_context(pem) if url.startswith("https") else None
        async with web_server(tls=tls) as (port, _), proxy() as (gate, asked):
            egress = EgressProxy.of(f"http://127.0.0.1:{gate}", exempt)
            assert await get(f"{url}:{port}", egress) == b"ok"
            assert asked == []

    run(main)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy answered 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "the proxy answered 502"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "the proxy closed the connection"),
        (b"nonsense\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, "too long"),
        (b"", "timed out"),
    ],
    ids=["407", "502", "interim only", "nonsense", "too long", "silent"],
)
def test_a_refusing_proxy_means_that_nothing_was_sent(run, answer: bytes, why: str) -> None:
    async def main() -> None:
        async with proxy(answer) as (gate, _):
            egress = EgressProxy.of(f"127.0.0.1:{gate}", "")
            with pytest.raises(ConnectFailed, match=why):
                await get("https://provider.example", egress, PATIENCE if answer else 0.3)

    run(main)


# --- settings -------------------------------------------------------------------------------------


def _settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> settings.Settings:
    monkeypatch.setenv("GATEWAY_SERVICE_TOKEN", "secret")
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return settings.from_environment()


def test_without_a_proxy_all_connections_are_direct(monkeypatch) -> None:
    assert _settings(monkeypatch).egress is None


def test_the_proxy_is_read_in_lower_case_first(monkeypatch) -> None:
    found = _settings(
        monkeypatch,
        HTTPS_PROXY="http://upper:1",
        https_proxy="http://lower:2",
        NO_PROXY="localhost,.internal",
    ).egress
    assert found is not None
    assert (found.host, found.port, found.authorization) == ("lower", 2, b"")
    assert found.covers("api.anthropic.com")
    assert not found.covers("localhost")
    assert not found.covers("billing.internal")


@pytest.mark.parametrize("url", ["socks5://proxy:1080", "https://proxy:443", "http://"])
def test_a_proxy_that_cannot_be_used_stops_the_start(monkeypatch, url: str) -> None:
    with pytest.raises(EnvValidationError, match=r"HTTPS_PROXY.*cannot be used"):
        _settings(monkeypatch, HTTPS_PROXY=url)
