"""A cheap fake of Django for the gateway, in memory: tokens, quota, the feed, and a ledger."""

import asyncio
import hashlib
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import msgspec

from benchmarks.load import wire

SERVICE_TOKEN = "service-token-of-the-benchmark"
CREDITS_PER_USD = 120
FAR_AHEAD = "2126-12-01T00:00:00Z"
_BUCKETS = ("ai_credits", "posthog_code_credits")


@dataclass
class Project:
    """An organization with one project. `allotted` is in micro-credits; None means unlimited."""

    id: int
    organization: str
    allotted: int | None
    booked: int = 0
    version: int = 1

    @property
    def account(self) -> str:
        """The account that pays for its calls."""
        return f"{self.organization}:ai_credits"


@dataclass
class Tollgate:
    """The server and its ledger, which books an event once."""

    url: str = ""
    projects: dict[int, Project] = field(default_factory=dict)
    tokens: dict[str, Project] = field(default_factory=dict)
    ledger: dict[str, dict[str, Any]] = field(default_factory=dict)  # by event id
    by_trace: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    conflicts: int = 0
    deliveries: int = 0
    keep_events: bool = True

    def __post_init__(self) -> None:
        self._feed, self._epoch = str(uuid.uuid4()), str(uuid.uuid4())

    async def start(self) -> None:
        """Start listening."""
        self._server, self.url = await wire.serve(self.handle)

    def project(self, allotted: int | None = None) -> Project:
        """Create a project with this allotment in micro-credits (None: unlimited)."""
        project = Project(1000 + len(self.projects), str(uuid.uuid4()), allotted)
        self.projects[project.id] = project
        return project

    def token(self, project: Project) -> str:
        """Create the token of one coding run."""
        token = f"pha_{uuid.uuid4().hex}"
        self.tokens[token] = project
        return token

    def handle(self, request: wire.Request, _: wire.ServerConnection) -> bytes:
        """Return the answer to one of the gateway's four kinds of request."""
        path = request.target.partition(b"?")[0]
        if request.headers.get(b"authorization") != b"Bearer " + SERVICE_TOKEN.encode():
            return wire.response(401, b"{}")
        if path == b"/api/usage_events/":
            answer = self._book(msgspec.json.decode(request.body)["batch"])
        elif path == b"/api/quota_changes/":
            changes: list[Any] = []
            answer = {
                "version": 1, "feed": self._feed, "reset": False, "revoked": [],
                "changes": changes,
            }  # fmt: skip
        elif path == b"/oauth/introspect/":
            answer = self._introspect(parse_qs(request.body.decode())["token"][0])
        else:
            answer = self._quota(self.projects[int(path.split(b"/")[3])])
        return wire.response(200, msgspec.json.encode(answer))

    def _introspect(self, token: str) -> dict[str, Any]:
        project = self.tokens.get(token)
        if project is None:
            return {"active": False}
        return {
            "active": True, "scope": "llm_gateway:read", "exp": None, "token_kind": "oauth_run",
            "organization_id": project.organization, "project_id": project.id,
            "project_ids": [project.id], "products": ["slack_app"],
            "task_run_id": str(uuid.UUID(hashlib.md5(token.encode()).hexdigest())),
        }  # fmt: skip

    def _quota(self, project: Project) -> dict[str, Any]:
        common = {
            "limited": False, "state": "ok", "reason": None, "limited_until": None,
            "resets_at": FAR_AHEAD, "usage": 0.0, "limit": None, "remaining": None, "mode": "hard",
            "credits_per_usd": CREDITS_PER_USD, "booked_micro": 0, "allotment_micro": None,
            "valid_until": FAR_AHEAD, "ledger_epoch": self._epoch, "version": project.version,
        }  # fmt: skip
        limited: dict[str, dict[str, Any]] = {
            name: {**common, "account": f"{project.organization}:{name}"} for name in _BUCKETS
        }
        # All of an account's usage comes from one group here, so its allotment never changes.
        limited["ai_credits"] |= {
            "allotment_micro": project.allotted,
            "booked_micro": project.booked,
        }
        return {
            "limited": limited, "organization_id": project.organization, "as_of": FAR_AHEAD,
            "version": 1,
        }  # fmt: skip

    def _book(self, batch: list[dict[str, Any]]) -> dict[str, Any]:
        self.deliveries += len(batch)
        return {"results": [self._book_one(event) for event in batch]}

    def _book_one(self, event: dict[str, Any]) -> dict[str, Any]:
        status = "accepted"
        if self.keep_events:
            known = self.ledger.get(event["uuid"])
            if known is None:
                self.ledger[event["uuid"]] = event
                properties = event["properties"]
                self.by_trace[properties["$ai_trace_id"]].append(event)
                project = self.projects[properties["project_id"]]
                project.booked += event["debited_micro"]
                project.version += 1
            elif known == event:
                status = "duplicate"
            else:
                status = "conflict"
                self.conflicts += 1
        return {"uuid": event["uuid"], "status": status, "reason": None, "version": 1}


async def settled(condition: Any, seconds: float, what: str) -> None:
    """Wait until `condition()` is true; after `seconds`, raise a `TimeoutError` with `what`."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - the state is in another process
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise TimeoutError(f"{what} did not happen within {seconds:g} s") from None
