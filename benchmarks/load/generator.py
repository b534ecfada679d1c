"""The load generator: keep-alive connections, one call at a time on each, bounded loops."""

import asyncio
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.load import wire
from benchmarks.load.upstream import MODEL

# The headers of the anthropic SDK besides the credential.
_SDK_HEADERS = {
    "accept": "application/json",
    "accept-encoding": "gzip, deflate",
    "user-agent": "Anthropic/Python 2.12.0",
    "content-type": "application/json",
    "anthropic-version": "2023-06-01",
    "x-stainless-lang": "python",
    "x-stainless-package-version": "2.12.0",
    "x-stainless-os": "Linux",
    "x-stainless-arch": "x64",
    "x-stainless-runtime": "CPython",
    "x-stainless-async": "async:asyncio",
    "x-stainless-retry-count": "0",
    "x-stainless-timeout": "600",
}


def small_body(*, stream: bool = False) -> bytes:
    """Return a short question to the Messages API."""
    question = {"role": "user", "content": "What does the fox do, and why? Answer in a line."}
    return _body(stream=stream, system="You are terse.", messages=[question])


def large_body(size: int = 200_000) -> bytes:
    """Return a body as coding agents send it: many turns of code, `size` bytes in all."""
    turns: list[dict[str, object]] = []
    text = "def f(x):\n    return x\n" * 80
    while len(turns) * (len(text) + 240) < size or len(turns) % 2 == 0:
        role = "assistant" if len(turns) % 2 else "user"
        turns.append({"role": role, "content": [{"type": "text", "text": text}]})
    return _body(stream=False, messages=turns)


def _body(**fields: object) -> bytes:
    document = {"model": MODEL, "max_tokens": 100, **fields}
    return json.dumps(document, separators=(",", ":")).encode()


@dataclass
class Load:
    """One kind of call. A gateway with several credentials gets them in turn."""

    url: str
    body: bytes
    path: str = "/v1/messages"
    tokens: Sequence[str] = ("none",)
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._heads = itertools.cycle([self._head(token) for token in self.tokens])
        self._tail = b"-00f067aa0ba902b7-01\r\n\r\n" + self.body

    def _head(self, token: str) -> bytes:
        headers = {
            "host": self.url.removeprefix("http://"),
            "authorization": f"Bearer {token}",
            **_SDK_HEADERS,
            **self.headers,
            "content-length": str(len(self.body)),
            "traceparent": "00-",
        }
        lines = [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([f"POST {self.path} HTTP/1.1", *lines]).encode()

    def next(self) -> tuple[str, bytes]:
        """Return the trace id and the bytes of one more call."""
        trace = os.urandom(16).hex()
        return trace, next(self._heads) + trace.encode() + self._tail


@dataclass
class Result:
    """The results of a load. Times are in seconds, of complete answers with status 200 only."""

    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    first_bytes: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    elapsed: float = 0.0
    example: bytes = b""

    def add(self, reply: wire.Reply) -> None:
        """Count one answer."""
        if not reply.complete:
            self.broken += 1
            return
        self.statuses[reply.status] += 1
        if reply.status == 200:
            self.first_bytes.append(reply.first_byte - reply.started)
            self.totals.append(reply.ended - reply.started)
        else:
            self.example = reply.body

    @property
    def calls(self) -> int:
        """Calls that succeeded."""
        return len(self.totals)

    @property
    def rate(self) -> float:
        """Successful calls per second."""
        return self.calls / self.elapsed if self.elapsed else 0.0

    def check(self, *, failures: int = 0) -> "Result":
        """Return itself. Raise `RuntimeError` if more calls than this failed."""
        failed = self.broken + sum(self.statuses.values()) - self.statuses[200]
        if failed > failures or not self.calls:
            raise RuntimeError(f"{failed} failed: {dict(self.statuses)} {self.example[:300]!r}")
        return self


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def closed_loop(
    load: Load,
    connections: int,
    *,
    seconds: float = 60.0,
    count: int | None = None,
    spread: float = 0.0,
) -> Result:
    """Return the results of calls, one at a time on each connection.

    The calls go on for `seconds`, or until there were `count`. `spread` is the number of seconds
    over which the connections start evenly, instead of all at once.
    """
    result = Result()
    left = itertools.count() if count is None else iter(range(count))
    began = time.perf_counter()
    deadline = began + seconds

    async def work(pause: float) -> None:
        await asyncio.sleep(pause)
        connection = await wire.connect(load.url)
        while time.perf_counter() < deadline and next(left, None) is not None:
            if connection.lost:
                connection = await wire.connect(load.url)
            result.add(await connection.call(load.next()[1]))
        connection.close()

    await asyncio.gather(*(work(spread * number / connections) for number in range(connections)))
    result.elapsed = time.perf_counter() - began
    return result


async def at_once(load: Load, count: int) -> list[tuple[str, wire.Reply]]:
    """Open `count` connections, then send one call on each in the same moment."""
    opened = [await wire.connect(load.url) for _ in range(count)]
    calls = [load.next() for _ in opened]
    replies = await asyncio.gather(
        *(each.call(request) for each, (_, request) in zip(opened, calls, strict=True))
    )
    for each in opened:
        each.close()
    return [(trace, reply) for (trace, _), reply in zip(calls, replies, strict=True)]
