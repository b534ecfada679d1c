"""The gateway, as the worker reaches it, and connections to it."""

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

LONGEST_HEAD = 65_536
"""Bytes of a request's or an answer's head."""


@dataclass
class Upstream:
    """A connection to the gateway."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __post_init__(self) -> None:
        self.state = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD)

    def is_reusable(self) -> bool:
        """Return whether another request can be sent."""
        return self.state.our_state is h11.IDLE and not self.reader.at_eof()


@dataclass(frozen=True)
class Gateway:
    """Where the gateway is."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    authority: bytes
    prefix: bytes

    @classmethod
    def of(cls, url: str) -> "Gateway":
        """Return the gateway at this URL. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an address of a gateway: {url!r}")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        authority = parts.netloc.rpartition("@")[2].encode()
        return cls(parts.hostname, port, tls, authority, parts.path.rstrip("/").encode())

    async def connect(self) -> Upstream:
        """Open a connection. Raises OSError."""
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.tls)
        return Upstream(reader, writer)
