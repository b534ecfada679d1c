"""A fake Django in memory, as the gateway sees it: projects, tokens, quota, change feed, ledger.

It follows the rules of the protocol: an event is booked once, bookings count for the account and
the group, and every change of a project is in the feed. Tests can make it fail with its verbs.
"""

import hashlib
import itertools
import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.gateway.threads import AsgiThread, opened

SERVICE_TOKEN = "service-token-of-the-gateway-tests"
RATES = {"ai_credits": Decimal(120), "posthog_code_credits": Decimal(100)}
RESETS_AT = "2126-12-01T00:00:00Z"
START_CREDITS = 1_000_000
LARGEST_BATCH = (1_000, 5_000_000)  # events, bytes


@dataclass
class Account:
    """An organization's bucket. Amounts are in micro-credits."""

    allotted: int | None = None
    booked: int = 0
    version: int = 1
    usage_elsewhere: int = 0
    caps: dict[str, int] = field(default_factory=dict)  # by scope; "run" for every run
    caps_version: int = 0


@dataclass
class FakeProject:
    """A project with its tokens and verdicts."""

    id: int
    organization_id: str
    limited: dict[str, dict[str, Any]] = field(default_factory=dict)


class FakeTollgate(AsgiThread):
    """The server and its verbs; safe to use from any thread."""

    def __init__(self) -> None:
        routes = [
            Route("/oauth/introspect/", self._introspect, methods=["POST"]),
            Route("/api/projects/{project_id:int}/quota_limits/", self._quota),
            Route("/api/quota_changes/", self._changes),
            Route("/api/usage_events/", self._events, methods=["POST"]),
            Route("/api/insufficient_remaining/", self._insufficient, methods=["POST"]),
        ]
        super().__init__(Starlette(routes=routes), http="httptools", loop="uvloop")
        self._lock = threading.RLock()
        self._ids = itertools.count(1000)
        self.feed = str(uuid.uuid4())
        self.ledger_epoch = str(uuid.uuid4())
        self.version = 100
        self.tokens: dict[str, dict[str, Any]] = {}
        self.projects: dict[int, FakeProject] = {}
        self.accounts: dict[str, Account] = {}
        self.changes: list[tuple[int, dict[str, Any]]] = []
        self.revoked: list[tuple[int, str]] = []
        self.booked: dict[str, dict[str, Any]] = {}
        self.deliveries: list[str] = []
        self.batches: list[tuple[int, int]] = []  # (events, bytes)
        self.largest_batch = LARGEST_BATCH
        self.calls: dict[str, int] = {}
        self.asked_about: Counter[int | str] = Counter()  # by project and by token
        self.failures: dict[str, tuple[int, Any]] = {}
        self.event_status: dict[str, str] = {}
        self.insufficient: list[dict[str, Any]] = []
        self.forget_booking_answers = False
        self._answering = threading.Event()
        self._answering.set()

    # --- verbs -----------------------------------------------------------------------------------

    def project(self, credits: float | None = None, resource: str = "ai_credits") -> FakeProject:
        """Create an organization with one project and these credits (None: unlimited)."""
        with self._lock:
            project = FakeProject(next(self._ids), str(uuid.uuid4()))
            self.projects[project.id] = project
            for name in RATES:
                self.accounts[f"{project.organization_id}:{name}"] = Account()
            self.allot(project, credits, resource)
        return project

    def account(self, project: FakeProject, resource: str = "ai_credits") -> Account:
        """Return the account of a project."""
        return self.accounts[f"{project.organization_id}:{resource}"]

    def allot(
        self, project: FakeProject, credits: float | None, resource: str = "ai_credits"
    ) -> None:
        """Change the total that the organization may use."""
        with self._lock:
            account = self.account(project, resource)
            account.allotted = None if credits is None else round(credits * 1_000_000)
            account.version += 1
            self._announce(project)

    def cap(
        self, project: FakeProject, scope: str, credits: float | None, resource: str = "ai_credits"
    ) -> None:
        """Cap `project:<id>`, `user:<distinct id>` or `run` within an account; None removes it."""
        with self._lock:
            account = self.account(project, resource)
            account.caps_version += 1
            if credits is None:
                del account.caps[scope]
            else:
                account.caps[scope] = round(credits * 1_000_000)
            for sibling in self.projects.values():
                if sibling.organization_id == project.organization_id:
                    self._announce(sibling)

    def limit(
        self, project: FakeProject, resource: str = "ai_credits", reason: str = "limit_reached"
    ) -> None:
        """Limit a project."""
        with self._lock:
            project.limited[resource] = {
                "state": "limited",
                "reason": reason,
                "limited_until": RESETS_AT,
                "resets_at": RESETS_AT,
            }
            self._announce(project)

    def lift(self, project: FakeProject, resource: str = "ai_credits") -> None:
        """Lift a limit."""
        with self._lock:
            project.limited.pop(resource, None)
            self._announce(project)

    def token(self, project: FakeProject, product: str = "slack_app", **fields: Any) -> str:
        """Create a token of a project, by default that of a run started from Slack."""
        kinds = {
            "slack_app": "oauth_run",
            "slack_app_routing": "oauth_product",
            "posthog_code": "oauth_client",
            "llm_gateway": "personal_api_key",
        }
        kind = fields.get("token_kind", kinds[product])
        token = f"{'phx' if kind == 'personal_api_key' else 'pha'}_{uuid.uuid4().hex}"
        self.tokens[token] = {
            "active": True,
            "scope": "llm_gateway:read",
            "exp": None,
            "token_kind": kind,
            "organization_id": project.organization_id,
            "project_id": project.id,
            "project_ids": [project.id],
            "task_run_id": str(uuid.uuid4()) if kind == "oauth_run" else None,
            "products": [product],
            "unmetered_gateway": product == "llm_gateway",
            **fields,
        }
        return token

    def revoke(self, token: str) -> None:
        """Revoke a token, and announce that in the feed."""
        with self._lock:
            del self.tokens[token]
            self.version += 1
            self.revoked.append((self.version, hashlib.sha256(token.encode()).hexdigest()))

    def fail(self, what: str, status: int = 503, body: Any = None) -> None:
        """Answer `introspect`, `quota`, `changes` or `events` like this until `mend`."""
        self.failures[what] = (status, body)

    def mend(self, *what: str) -> None:
        """Answer properly again."""
        for name in what or list(self.failures):
            self.failures.pop(name, None)

    @contextmanager
    def hesitating(self) -> Iterator[None]:
        """Delay all answers about tokens until the block ends."""
        self._answering.clear()
        try:
            yield
        finally:
            self._answering.set()

    def events_of(self, project: FakeProject) -> list[dict[str, Any]]:
        """Return the booked events of a project."""
        with self._lock:
            return [
                event
                for event in self.booked.values()
                if event["properties"]["project_id"] == project.id
            ]

    def credits_booked(self, project: FakeProject) -> int:
        """Return what billing books for a project's events, in micro-credits."""
        return sum(
            to_micro(event)
            for event in self.events_of(project)
            if event["properties"]["$ai_billable"]
        )

    # --- the API ---------------------------------------------------------------------------------

    def _announce(self, project: FakeProject) -> None:
        self.version += 1
        self.changes.append(
            (
                self.version,
                {
                    "account": f"{project.organization_id}:ai_credits",
                    "organization_id": project.organization_id,
                    "project_id": project.id,
                    "version": self.version,
                    "limited": "ai_credits" in project.limited,
                },
            )
        )

    def _refusal(self, request: Request, what: str) -> Response | None:
        with self._lock:
            self.calls[what] = self.calls.get(what, 0) + 1
        if what in self.failures:
            status, body = self.failures[what]
            return Response(body if isinstance(body, bytes) else json.dumps(body), status)
        if request.headers.get("authorization") != f"Bearer {SERVICE_TOKEN}":
            return JSONResponse({"detail": "no"}, 401)
        return None

    async def _introspect(self, request: Request) -> Response:
        if refusal := self._refusal(request, "introspect"):
            return refusal
        form = dict(parse_qsl((await request.body()).decode()))
        with self._lock:
            self.asked_about[form["token"]] += 1
        await opened(self._answering)
        return JSONResponse(self.tokens.get(form["token"], {"active": False}))

    async def _quota(self, request: Request) -> Response:
        with self._lock:
            self.asked_about[request.path_params["project_id"]] += 1
        if refusal := self._refusal(request, "quota"):
            return refusal
        with self._lock:
            project = self.projects.get(request.path_params["project_id"])
            if project is None:
                return JSONResponse({"detail": "not found"}, 404)
            user = request.query_params.get("user")
            limited = {name: self._resource(project, name, user) for name in RATES}
            body = {
                "limited": limited,
                "organization_id": project.organization_id,
                "as_of": "2126-11-23T08:00:00Z",
                "version": self.version,
            }
        return JSONResponse(body)

    def _resource(self, project: FakeProject, name: str, user: str | None) -> dict[str, Any]:
        account = self.account(project, name)
        allotment = account.allotted
        if allotment is not None:
            allotment -= account.usage_elsewhere
        verdict = {"state": "ok", "reason": None, "limited_until": None, "resets_at": RESETS_AT}
        return {
            "limited": name in project.limited,
            **verdict,
            **project.limited.get(name, {}),
            "usage": account.booked / 1_000_000,
            "limit": None if account.allotted is None else account.allotted / 1_000_000,
            "remaining": None,
            "mode": "hard",
            "credits_per_usd": str(RATES[name]),
            "account": f"{project.organization_id}:{name}",
            "allotment_micro": allotment,
            "booked_micro": account.booked,
            "valid_until": RESETS_AT,
            "ledger_epoch": self.ledger_epoch,
            "version": account.version,
            "caps": self._caps(account, f"{project.organization_id}:{name}", project, user),
        }

    def _caps(
        self, account: Account, name: str, project: FakeProject, user: str | None
    ) -> dict[str, Any] | None:
        if not account.caps_version:
            return None
        asked = {f"project:{project.id}": None, f"user:{user}": user}
        return {
            "version": account.caps_version,
            "run_micro": account.caps.get("run"),
            "users": any(scope.startswith("user:") for scope in account.caps),
            "scopes": {
                scope: {
                    "cap_micro": account.caps[scope],
                    "allotment_micro": account.caps[scope],
                    "booked_micro": sum(
                        event["debited_micro"]
                        for event in self.booked.values()
                        if event["account"] == name
                        and (
                            event["distinct_id"] == whose
                            if whose
                            else event["properties"]["project_id"] == project.id
                        )
                    ),
                }
                for scope, whose in asked.items()
                if scope in account.caps
            },
        }

    async def _changes(self, request: Request) -> Response:
        if refusal := self._refusal(request, "changes"):
            return refusal
        since = request.query_params.get("since")
        known = since is not None and request.query_params.get("feed") == self.feed
        with self._lock:
            start = int(since) if known else self.version
            return JSONResponse(
                {
                    "version": self.version,
                    "feed": self.feed,
                    "reset": not known,
                    "revoked": [digest for version, digest in self.revoked if version > start],
                    "changes": [change for version, change in self.changes if version > start],
                }
            )

    async def _insufficient(self, request: Request) -> Response:
        if refusal := self._refusal(request, "insufficient"):
            return refusal
        report = await request.json()
        with self._lock:
            self.insufficient.append(report)
            [project] = [
                project
                for project in self.projects.values()
                if project.organization_id == report["organization_id"]
            ]
            limited = report["remaining_micro"] < START_CREDITS
            if limited:
                self.limit(project, report["resource"], "insufficient_remaining")
        return JSONResponse({"limited": limited})

    async def _events(self, request: Request) -> Response:
        if refusal := self._refusal(request, "events"):
            return refusal
        batch = (await request.json())["batch"]
        size = len(batch), len(await request.body())
        self.batches.append(size)
        if size[0] > self.largest_batch[0] or size[1] > self.largest_batch[1]:
            return JSONResponse({"detail": "too large"}, 413)
        with self._lock:
            if any(event["uuid"] in self.event_status for event in batch) and len(batch) > 1:
                for event in batch:
                    if self.event_status.get(event["uuid"]) == "poison":
                        return JSONResponse({"detail": "malformed"}, 400)
            results = [self._book(event) for event in batch]
        if "poison" in [result["status"] for result in results]:
            return JSONResponse({"detail": "malformed"}, 400)
        if self.forget_booking_answers:
            return Response(status_code=503)
        return JSONResponse({"results": results})

    def _book(self, event: dict[str, Any]) -> dict[str, Any]:
        self.deliveries.append(event["uuid"])
        status = self.event_status.get(event["uuid"])
        if status is None:
            known = self.booked.get(event["uuid"])
            if known is None:
                self.booked[event["uuid"]] = event
                status = "accepted"
                if event["account"]:
                    account = self.accounts[event["account"]]
                    account.booked += event["debited_micro"]
                    account.version += 1
            else:
                status = "duplicate" if known == event else "conflict"
        return {"uuid": event["uuid"], "status": status, "reason": None, "version": self.version}


def to_micro(event: dict[str, Any], resource: str = "ai_credits") -> int:
    """Return what billing books for an event's price, in micro-credits."""
    cost = Decimal(event["properties"]["$ai_total_cost_usd"])
    return int((cost * RATES[resource] * 1_000_000).to_integral_value(ROUND_HALF_EVEN))
