"""The client of Django's API for the gateway, over HTTP with the service token."""

import asyncio
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from gateway.network.client import ConnectFailed, ExchangeFailed, HttpClient, Origin
from gateway.settings import Settings

ANSWER_SECONDS = 5.0
DELIVERY_SECONDS = 30.0
MAX_ANSWER = 16 << 20
_JSON = b"application/json"
_FORM = b"application/x-www-form-urlencoded"
T = TypeVar("T")


class TollgateUnavailable(Exception):
    """Django cannot answer now: a network error, a timeout, 429 or 5xx. Ask again later."""


class TollgateUnusable(Exception):
    """Django's answer is not usable: 401, 403, 404 or nonsense. It never permits a call."""


class BatchRefused(Exception):
    """Django refuses this batch, however often it is sent."""


class TokenAnswer(msgspec.Struct, frozen=True):
    """Introspection of a credential (RFC 7662 with fields of our own)."""

    active: bool
    scope: str = ""
    exp: int | None = None
    token_kind: str = ""
    organization_id: str | None = None
    project_id: int | None = None
    project_ids: list[int] = []
    task_run_id: str | None = None
    products: list[str] = []
    unmetered_gateway: bool | None = None  # None: only `products` decides
    sub: str | int | None = None
    distinct_id: str | None = None
    accepted_micro: int | None = None  # only of the token of a run: its accepted number


class ScopeAnswer(msgspec.Struct, frozen=True):
    """What one project or user of an account may spend, in micro-credits.

    `allotment_micro` and `booked_micro` are like the account's own; `cap_micro` is the cap for one
    period.
    """

    allotment_micro: int
    booked_micro: int
    cap_micro: int | None = None


class Caps(msgspec.Struct, frozen=True):
    """Caps within an account: of a run, of the project asked for, of the user asked for.

    If `users` is True there are caps of users, so Django has to be asked about each. A project or
    user that `scopes` does not name has no cap.
    """

    version: int
    run_micro: int | None = None
    users: bool = False
    scopes: dict[str, ScopeAnswer] = {}


class ResourceAnswer(msgspec.Struct, frozen=True):
    """One resource of a project's quota. Amounts in micro-credits; times are ISO 8601."""

    limited: bool
    credits_per_usd: str | float | int
    account: str
    version: int
    ledger_epoch: str
    booked_micro: int
    state: str = ""
    reason: str | None = None
    mode: str = "hard"
    usage: float | None = None
    limit: float | None = None
    limited_until: str | None = None
    resets_at: str | None = None
    time_zone: str = "UTC"
    valid_until: str | None = None
    allotment_micro: int | msgspec.UnsetType | None = msgspec.UNSET
    caps: Caps | None = None


class QuotaAnswer(msgspec.Struct, frozen=True):
    """A project's quota for every resource."""

    limited: dict[str, ResourceAnswer]
    organization_id: str


class Change(msgspec.Struct, frozen=True):
    """One entry of the change feed: refresh this project (None: all projects)."""

    account: str = ""
    project_id: int | None = None


class ChangesAnswer(msgspec.Struct, frozen=True):
    """What happened since a version of the feed."""

    version: int
    reset: bool
    feed: str = ""
    revoked: list[str] = []
    changes: list[Change] = []


class EventResult(msgspec.Struct, frozen=True):
    """What billing did with one delivered event."""

    uuid: str
    status: str
    reason: str | None = None


class StandingAnswer(msgspec.Struct, frozen=True):
    """Whether an account is limited now."""

    limited: bool


class BatchAnswer(msgspec.Struct, frozen=True):
    """What billing did with a batch, in the order sent."""

    results: list[EventResult]


class TollgateApi:
    """The client. Every method may raise `TollgateUnavailable` or `TollgateUnusable`."""

    def __init__(self, settings: Settings) -> None:
        self._origin = Origin.of(settings.tollgate_url)
        self._authorization = (b"authorization", f"Bearer {settings.service_token}".encode())
        self._client = HttpClient(connect_timeout=2.0, egress=settings.egress)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def introspect(self, token: str, group: str) -> TokenAnswer:
        """Return whose credential this is."""
        form = urlencode({"token": token, "group": group}).encode()
        status, body = await self._send("POST", "/oauth/introspect/", _FORM, form)
        return _read(status, body, TokenAnswer)

    async def quota(self, project_id: int, group: str, user: str = "") -> QuotaAnswer:
        """Return a project's quota with the account snapshot for this group, and a user's cap."""
        query = urlencode({"group": group} | ({"user": user} if user else {}))
        path = f"/api/projects/{project_id}/quota_limits/?{query}"
        return _read(*await self._send("GET", path), QuotaAnswer)

    async def changes(self, since: int | None, feed: str) -> ChangesAnswer:
        """Return what changed since a version; without one, only the current version."""
        query = "" if since is None else "?" + urlencode({"since": since, "feed": feed})
        return _read(*await self._send("GET", f"/api/quota_changes/{query}"), ChangesAnswer)

    async def deliver(self, events: list[msgspec.Raw]) -> list[EventResult]:
        """Deliver events. Raises `BatchRefused` if sending them again cannot help."""
        batch = msgspec.json.encode({"batch": events})
        status, body = await self._send(
            "POST", "/api/usage_events/", _JSON, batch, DELIVERY_SECONDS
        )
        if status in (400, 413, 422):
            raise BatchRefused(f"status {status}")
        return _read(status, body, BatchAnswer).results

    async def report_insufficient(
        self, organization_id: str, resource: str, remaining_micro: int
    ) -> bool:
        """Report that too little is left for a call; return whether the account is limited now."""
        report = msgspec.json.encode(
            {
                "organization_id": organization_id,
                "resource": resource,
                "remaining_micro": remaining_micro,
            }
        )
        answer = await self._send("POST", "/api/insufficient_remaining/", _JSON, report)
        return _read(*answer, StandingAnswer).limited

    async def _send(
        self,
        method: str,
        target: str,
        content_type: bytes = _JSON,
        body: bytes = b"",
        patience: float = ANSWER_SECONDS,
    ) -> tuple[int, bytes]:
        headers = [self._authorization, (b"accept", _JSON)]
        if body:
            headers.append((b"content-type", content_type))
        try:
            async with asyncio.timeout(patience):
                return await self._client.fetch(
                    self._origin, method, target, headers, body, MAX_ANSWER
                )
        except (ConnectFailed, ExchangeFailed, TimeoutError) as error:
            raise TollgateUnavailable(str(error) or "timed out") from None


def _read(status: int, body: bytes, answer: type[T]) -> T:
    if status >= 500 or status == 429:
        raise TollgateUnavailable(f"status {status}")
    if status != 200:
        raise TollgateUnusable(f"status {status}")
    try:
        return msgspec.json.decode(body, type=answer)
    except msgspec.DecodeError as error:
        raise TollgateUnusable(f"malformed answer: {error}") from None
