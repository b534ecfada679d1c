"""Opening TCP connections: every address of a host in turn, or through an egress proxy."""

import asyncio
import base64
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

import httptools

# How long an attempt may take before the next address is tried beside it (RFC 8305, 5).
ATTEMPT_DELAY = 0.25
_MAX_PROXY_HEAD = 16 * 1024
Made = TypeVar("Made", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class EgressProxy:
    """An HTTP proxy that tunnels TLS connections to every host outside `exempt`.

    `exempt` has the form of `NO_PROXY`: hosts and domains, comma-separated, or `*`.
    """

    host: str
    port: int
    authorization: bytes
    exempt: str

    @classmethod
    def of(cls, url: str, exempt: str) -> "EgressProxy":
        """Parse `http://[user:password@]host[:port]`. Raises `ValueError` for anything else."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
            raise ValueError("only http://[user:password@]host[:port] can be used as a proxy")
        authorization = b""
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            authorization = b"Basic " + base64.b64encode(f"{user}:{password}".encode())
        return cls(parts.hostname, parts.port or 80, authorization, exempt)

    def covers(self, host: str) -> bool:
        """Return whether connections to this host go through the proxy."""
        return not proxy_bypass_environment(host, {"no": self.exempt})


async def connect(
    factory: Callable[[], Made], host: str, port: int, tls: ssl.SSLContext | None
) -> Made:
    """Connect directly; return the protocol. Raises `OSError` if no address of the host answers.

    IPv6 and IPv4 addresses are tried alternately (RFC 8305): the next one when an attempt failed or
    is slow. The first that succeeds is used, and the others are given up.
    """
    loop = asyncio.get_running_loop()
    name = host if tls is not None else None
    waiting = _alternated(await resolve(host, port))
    running: set[asyncio.Task[tuple[asyncio.Transport, Made]]] = set()
    errors: list[OSError] = []
    try:
        while waiting or running:
            if waiting:
                family, address = waiting.pop(0)
                attempt = loop.create_connection(
                    factory, address, port, family=family, ssl=tls, server_hostname=name
                )
                running.add(loop.create_task(attempt))
            done, _ = await asyncio.wait(
                running,
                timeout=ATTEMPT_DELAY if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for each in done:
                running.discard(each)
                error = each.exception()
                if error is None:
                    return each.result()[1]
                if not isinstance(error, OSError):
                    raise error
                errors.append(error)
    finally:
        for each in running:
            each.cancel()
            each.add_done_callback(_abandon)
    raise errors[0]


async def tunnel(
    factory: Callable[[], Made], proxy: EgressProxy, host: str, port: int, tls: ssl.SSLContext
) -> Made:
    """Connect through the proxy (RFC 9110, 9.3.6), with TLS inside; return the protocol.

    Raises `OSError` if the proxy cannot be reached or refuses.
    """
    loop = asyncio.get_running_loop()
    gate = await connect(_ProxyAnswer, proxy.host, proxy.port, None)
    try:
        await gate.ask(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", proxy.authorization)
        made = factory()
        transport = await loop.start_tls(gate.transport, made, tls, server_hostname=host)
    except BaseException:
        gate.transport.abort()
        raise
    assert transport is not None
    made.connection_made(transport)
    return made


async def resolve(host: str, port: int) -> list[tuple[int, str]]:
    """Return family and address of a host, best first. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, str(address[0])) for family, _, _, _, address in found]


def _alternated(addresses: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return the addresses with families in turn, beginning with the resolver's first."""
    preferred = [each for each in addresses if each[0] == addresses[0][0]]
    others = [each for each in addresses if each[0] != addresses[0][0]]
    pairs = zip_longest(preferred, others)
    return [each for pair in pairs for each in pair if each is not None]


def _abandon(attempt: asyncio.Task[tuple[asyncio.Transport, Made]]) -> None:
    """Close the connection of an attempt that succeeded too late."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result()[0].abort()


class _ProxyAnswer(asyncio.Protocol):
    """A connection to the proxy, until the proxy has answered."""

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._size = 0
        self.transport: asyncio.Transport

    async def ask(self, authority: str, authorization: bytes) -> None:
        """Ask for a tunnel. Raises `OSError` if the proxy refuses."""
        lines = [f"CONNECT {authority} HTTP/1.1".encode(), b"host: " + authority.encode()]
        if authorization:
            lines.append(b"proxy-authorization: " + authorization)
        self.transport.write(b"\r\n".join([*lines, b"\r\n"]))
        try:
            status = await self._answered
        finally:
            self._parser = None  # breaks the reference cycle
        if not 200 <= status < 300:
            raise ConnectionError(f"the proxy answered {status}")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            return
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            self._fail("the proxy's answer is not HTTP")
        if self._size > _MAX_PROXY_HEAD:
            self._fail("the proxy's answer is too long")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("the proxy closed the connection")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code() if self._parser is not None else 0
        if status >= 200 and not self._answered.done():
            self._answered.set_result(status)

    def _fail(self, why: str) -> None:
        if not self._answered.done():
            self._answered.set_exception(ConnectionError(why))
