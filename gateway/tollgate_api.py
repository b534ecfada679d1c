"""Django as the gateway sees it: four questions over HTTP with the service token."""

from datetime import timedelta
from typing import Any

import msgspec
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.request import RequestBuilder

from gateway.settings import Settings


class TollgateUnavailable(Exception):
    """Django cannot answer now: a network error, a timeout, 429 or 5xx. Ask again later."""


class TollgateUnusable(Exception):
    """Django answered, but not what was asked: 401, 403, 404 or nonsense. Never a permission."""


class BatchRefused(Exception):
    """Django will not take this batch as it is, however often it is sent."""


class TokenAnswer(msgspec.Struct, frozen=True):
    """Introspection of a credential (RFC 7662 and what we add)."""

    active: bool
    scope: str = ""
    exp: int | None = None
    token_kind: str = ""
    organization_id: str | None = None
    project_id: int | None = None
    project_ids: list[int] = []
    task_run_id: str | None = None
    products: list[str] = []
    unmetered_gateway: bool | None = None  # None: `products` says it
    sub: str | int | None = None


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
    valid_until: str | None = None
    allotment_micro: int | msgspec.UnsetType | None = msgspec.UNSET


class QuotaAnswer(msgspec.Struct, frozen=True):
    """A project's quota, every resource of it."""

    limited: dict[str, ResourceAnswer]
    organization_id: str


class Change(msgspec.Struct, frozen=True):
    """One entry of the change feed: ask again about this project (None: all of the account)."""

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
    """What became of one delivered event."""

    uuid: str
    status: str
    reason: str | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    """What became of a batch, in the order sent."""

    results: list[EventResult]


class TollgateApi:
    """The client. Every method raises `TollgateUnavailable` or `TollgateUnusable`."""

    def __init__(self, settings: Settings) -> None:
        self._base = settings.tollgate_url
        self._token = settings.service_token
        self._client: Client = (
            ClientBuilder()
            .connect_timeout(timedelta(seconds=2))
            .timeout(timedelta(seconds=5))
            .follow_redirects(False)
            .no_proxy()
            .build()
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def introspect(self, token: str, group: str) -> TokenAnswer:
        """Ask whose credential this is."""
        request = self._client.post(f"{self._base}/oauth/introspect/")
        return await self._ask(request.form({"token": token, "group": group}), TokenAnswer)

    async def quota(self, project_id: int, group: str) -> QuotaAnswer:
        """Ask for a project's quota and the account snapshot of this group."""
        request = self._client.get(f"{self._base}/api/projects/{project_id}/quota_limits/")
        return await self._ask(request.query({"group": group}), QuotaAnswer)

    async def changes(self, since: int | None, feed: str) -> ChangesAnswer:
        """Ask what changed after a version; without one only the current version is told."""
        query = {} if since is None else {"since": str(since), "feed": feed}
        request = self._client.get(f"{self._base}/api/quota_changes/")
        return await self._ask(request.query(query), ChangesAnswer)

    async def deliver(self, events: list[msgspec.Raw]) -> list[EventResult]:
        """Hand over events. Raises `BatchRefused` when sending them again cannot help."""
        request = (
            self._client.post(f"{self._base}/api/usage_events/")
            .timeout(timedelta(seconds=30))
            .header("content-type", "application/json")
            .body_bytes(msgspec.json.encode({"batch": events}))
        )
        return (await self._ask(request, BatchAnswer, bodies_matter=True)).results

    async def _ask(
        self, request: RequestBuilder, answer: Any, *, bodies_matter: bool = False
    ) -> Any:
        try:
            response = await request.bearer_auth(self._token).build().send()
            body = await response.bytes()
        except PyreqwestError as error:
            raise TollgateUnavailable(type(error).__name__) from None
        status = response.status
        if status >= 500 or status == 429:
            raise TollgateUnavailable(f"status {status}")
        if status != 200 and not (bodies_matter and status in (207, 409)):
            if bodies_matter and status in (400, 413, 422):
                raise BatchRefused(f"status {status}")
            raise TollgateUnusable(f"status {status}")
        try:
            return msgspec.json.decode(memoryview(body), type=answer)
        except msgspec.DecodeError as error:
            raise TollgateUnusable(f"malformed answer: {error}") from None
