"""The way to the providers: one HTTP client, what is sent on of a call, and a breaker per host."""

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Self

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response, ResponseBodyReader

from gateway import metrics
from gateway.apis import Api
from gateway.errors import Refusal, unavailable
from gateway.settings import Settings

Headers = list[tuple[bytes, bytes]]

# Of one connection only (RFC 9110, 7.6.1), and what is made anew for the next.
_HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
# Never told to a provider: who calls us, how they came here, and the choice of the operator's
# account with the provider.
_NOT_SENT = _HOP_BY_HOP | frozenset(
    {
        b"host", b"content-length", b"authorization", b"x-api-key", b"cookie", b"x-project-id",
        b"accept-encoding", b"expect", b"forwarded", b"via", b"x-real-ip", b"openai-organization",
        b"openai-project",
    }
)  # fmt: skip
_NOT_SENT_PREFIXES = (b"x-forwarded-", b"sec-", b"cf-")
# Cookies of the provider's edge are for the gateway, not for its callers.
_NOT_RETURNED = _HOP_BY_HOP | {b"set-cookie"}

FAILURES_TO_OPEN = 5
OPEN_SECONDS = 5.0


class UpstreamFailed(Exception):
    """The provider could not be reached or broke off. `sent`: it may have got the request."""

    def __init__(self, message: str, *, sent: bool, timed_out: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.timed_out = timed_out


class Breaker:
    """Stops calling a host that cannot be reached; after a while one call tries again."""

    def __init__(self) -> None:
        self._failures = 0
        self._open_until = 0.0

    def check(self, name: str) -> None:
        """Raise a 503 `Refusal` while the host is not to be called."""
        now = time.monotonic()
        if self._failures >= FAILURES_TO_OPEN:
            if now < self._open_until:
                raise unavailable(f"The provider {name} cannot be reached.", "provider_unreachable")
            self._open_until = now + OPEN_SECONDS  # this call tries; the others still wait

    def succeeded(self) -> None:
        """The host answered, whatever it said."""
        self._failures = 0

    def failed(self) -> None:
        """The host could not be reached."""
        self._failures += 1
        self._open_until = time.monotonic() + OPEN_SECONDS


class Answer:
    """A provider's answer, read chunk by chunk. To be used as an async context manager."""

    def __init__(self, request: StreamRequest, upstream: str, breaker: Breaker) -> None:
        self._request = request
        self._upstream = upstream
        self._breaker = breaker
        self._reader: ResponseBodyReader | None = None
        self.status = 0
        self.headers: Headers = []
        self.first_byte_after = 0.0

    async def __aenter__(self) -> Self:
        """Send the request and wait for the head of the answer. Raises `UpstreamFailed`."""
        started = time.perf_counter()
        try:
            response: Response = await self._request.__aenter__()
        except PyreqwestError as error:
            kind = type(error).__name__
            connecting = kind in ("ConnectError", "ConnectTimeoutError", "PoolTimeoutError")
            if connecting:
                self._breaker.failed()
            raise UpstreamFailed(
                kind, sent=not connecting, timed_out=isinstance(error, TimeoutError)
            ) from None
        self._breaker.succeeded()
        self.first_byte_after = time.perf_counter() - started
        metrics.UPSTREAM_SECONDS.labels(self._upstream).observe(self.first_byte_after)
        self.status = response.status
        self.headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in response.headers.items()
        ]
        self._reader = response.body_reader
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the answer; what was not read is not read any more."""
        await self._request.__aexit__(None, None, None)

    async def read(self) -> bytes | None:
        """Return the next bytes as they come, None at the end. Raises `UpstreamFailed`."""
        assert self._reader is not None
        try:
            chunk = await self._reader.read_chunk()
        except PyreqwestError as error:
            raise UpstreamFailed(
                type(error).__name__, sent=True, timed_out=isinstance(error, TimeoutError)
            ) from None
        return None if chunk is None else bytes(chunk)


class Upstreams:
    """The providers of the registry."""

    def __init__(self, settings: Settings) -> None:
        self._upstreams = settings.upstreams
        self._breakers = {name: Breaker() for name in settings.upstreams}
        self._client: Client = (
            ClientBuilder()
            .connect_timeout(timedelta(seconds=settings.connect_timeout))
            .max_connections(None)
            .follow_redirects(False)
            .referer(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .http1_only()
            .pool_max_idle_per_host(512)
            .pool_idle_timeout(timedelta(seconds=30))
            .build()
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def call(
        self, api: Api, query: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> Answer:
        """Prepare a call to the API's provider. Raises `Refusal` while it cannot be reached."""
        upstream = self._upstreams[api.provider]
        breaker = self._breakers[api.provider]
        breaker.check(api.provider)
        url = f"{upstream.url}{api.path}"
        if query:
            url += "?" + query.decode("ascii", "replace")
        request = self._client.request(api.method, url).headers(
            request_headers(headers, api, upstream.key)
        )
        if api.method != "GET":
            request = request.body_bytes(body)
        return Answer(request.streamed_read_buffer_limit(0).build_streamed(), api.provider, breaker)


def request_headers(
    headers: Iterable[tuple[bytes, bytes]], api: Api, key: str
) -> list[tuple[str, str]]:
    """Return the headers for the provider: the caller's own, with the operator's key.

    Compression is not asked for, because the usage has to be read from what passes.
    """
    headers = list(headers)
    named = {
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }
    sent = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if name not in _NOT_SENT and name not in named and not name.startswith(_NOT_SENT_PREFIXES)
    ]
    sent.append(("accept-encoding", "identity"))
    if key:
        sent.append(
            ("x-api-key", key) if api.dialect == "anthropic" else ("authorization", f"Bearer {key}")
        )
    return sent


def response_headers(headers: Headers, *, length_changes: bool) -> Headers:
    """Return the provider's headers for the caller."""
    return [
        (name, value)
        for name, value in headers
        if name not in _NOT_RETURNED and not (length_changes and name == b"content-length")
    ]


def refusal_of(failure: UpstreamFailed, provider: str) -> Refusal:
    """Return what the caller is told when the provider gave no answer at all."""
    if failure.timed_out:
        return Refusal(504, "provider_timeout", f"The provider {provider} did not answer in time.")
    return Refusal(502, "provider_failed", f"The provider {provider} could not be reached.")
