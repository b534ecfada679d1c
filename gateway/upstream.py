"""Calling the providers: which headers are forwarded, and a circuit breaker for each provider."""

import time
from collections.abc import Callable, Iterable

from gateway.apis import Api
from gateway.errors import Refusal, unavailable
from gateway.network.client import ConnectFailed, ExchangeFailed, HttpClient, HttpResponse, Origin
from gateway.network.headers import HOP_BY_HOP, OURS, PROVIDER, Headers, without_named
from gateway.settings import Settings
from gateway.telemetry import metrics

# Never forwarded to a provider: who the caller is, the way the request came, and the choice of the
# operator's account with the provider.
_NOT_SENT = HOP_BY_HOP | frozenset(
    {
        b"host", b"content-length", b"authorization", b"x-api-key", b"cookie", b"x-project-id",
        b"accept-encoding", b"expect", b"forwarded", b"via", b"x-real-ip", b"openai-organization",
        b"openai-project", b"anthropic-user-profile-id", b"anthropic-workspace-id",
        b"content-encoding", b"idempotency-key",
    }
)  # fmt: skip
_NOT_SENT_PREFIXES = (OURS, b"x-forwarded-", b"sec-", b"cf-")
# Never returned to callers: the provider's cookies, and the operator's account with the provider.
_NOT_RETURNED = HOP_BY_HOP | {
    b"set-cookie", b"openai-organization", b"openai-project", b"anthropic-organization-id",
}  # fmt: skip

FAILURES_TO_OPEN = 5
OPEN_SECONDS = 5.0


class UpstreamFailed(Exception):
    """The provider gave no answer."""


class Breaker:
    """A circuit breaker: stops calls to an unreachable host, then lets one call try again."""

    def __init__(self) -> None:
        self._failures = 0
        self._open_until = 0.0

    def check(self, name: str) -> None:
        """Raise a 503 `Refusal` while the host must not be called."""
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


class Upstreams:
    """The configured providers."""

    def __init__(self, settings: Settings) -> None:
        self._upstreams = settings.upstreams
        self._origins = {name: Origin.of(up.url) for name, up in settings.upstreams.items()}
        self._breakers = {name: Breaker() for name in settings.upstreams}
        self._client = HttpClient(settings.connect_timeout, settings.egress)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def open(
        self,
        api: Api,
        query: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        sending: Callable[[], None],
    ) -> HttpResponse:
        """Call the API's provider; return its answer once the head has arrived.

        The caller must close the answer. `sending` is called before the first byte is sent. Raises
        `UpstreamFailed`, or `Refusal` while the breaker is open.
        """
        provider = api.provider
        breaker = self._breakers[provider]
        breaker.check(provider)
        target = f"{api.path}?{query.decode('latin-1')}" if query else api.path
        sent = request_headers(headers, api, self._upstreams[provider].key)
        started = time.perf_counter()
        try:
            response = await self._client.open(
                self._origins[provider], api.method, target, sent, body, sending
            )
        except ConnectFailed as error:
            breaker.failed()
            raise UpstreamFailed(str(error)) from None
        except ExchangeFailed as error:
            raise UpstreamFailed(str(error)) from None
        breaker.succeeded()
        metrics.upstream_seconds(provider, time.perf_counter() - started)
        return response


def request_headers(headers: Iterable[tuple[bytes, bytes]], api: Api, key: str) -> Headers:
    """Return the headers for the provider: the caller's own, with the operator's key.

    They ask for an uncompressed answer, because the usage is read from the passing bytes.
    """
    sent: Headers = []
    connection: list[bytes] = []
    for header in headers:
        name = header[0]
        if name in _NOT_SENT:
            if name == b"connection":
                connection.append(header[1])
        elif not name.startswith(_NOT_SENT_PREFIXES):
            sent.append(header)
    sent = without_named(sent, connection)
    sent.append((b"accept-encoding", b"identity"))
    if key:
        sent.append(
            (b"x-api-key", key.encode())
            if api.dialect == "anthropic"
            else (b"authorization", b"Bearer " + key.encode())
        )
    return sent


def response_headers(headers: Headers, provider: str, *, length_changes: bool) -> Headers:
    """Return the provider's headers for the caller, with one that names the provider."""
    returned: Headers = []
    connection: list[bytes] = []
    for header in headers:
        name = header[0]
        if name in _NOT_RETURNED:
            if name == b"connection":
                connection.append(header[1])
        elif not (name.startswith(OURS) or (length_changes and name == b"content-length")):
            returned.append(header)
    returned = without_named(returned, connection)
    returned.append((PROVIDER, provider.encode()))
    return returned


def no_answer(provider: str) -> Refusal:
    """Return the refusal for a call that the provider did not answer."""
    return Refusal(502, "provider_failed", f"The provider {provider} did not answer.")


def no_answer_in_time(provider: str) -> Refusal:
    """Return the refusal for a call that the provider did not answer in time."""
    return Refusal(504, "provider_timeout", f"The provider {provider} did not answer in time.")
