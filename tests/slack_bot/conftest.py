"""A workspace that serves a project, a fake Slack, and our web process as Slack calls it."""

import asyncio
import itertools
import json
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.db import close_old_connections, connections
from django.test import Client
from temporalio.client import Client as TemporalClient
from temporalio.service import RPCError, RPCStatusCode

from billing.allowances.limits import set_limit
from billing.organizations import create_organization, create_project
from coding_tasks.models import CodingTask, Repository
from devstack.demo_slack.block_kit import answer_violations
from devstack.demo_slack.events import SignedRequest
from projects.models import Project, SlackWorkspace
from quota.published import redis_client as gate_redis
from quota.resources import AI_CREDITS
from slack_bot import arrivals
from tests.fakes import FakeSlack
from tests.ready_project import ready_project
from tests.redis_timeouts import wait_as_in_production
from workflows.mention_types import workflow_id
from workflows.temporal import client as workflow_client

REDELIVERIES = 20
PAYLOADS = Path(__file__).with_name("payloads")


def captured(name: str, **event: Any) -> dict[str, Any]:
    """Return a captured payload. Keywords replace fields of the inner event."""
    payload = json.loads((PAYLOADS / f"{name}.json").read_text())
    payload["event"] = {**payload.get("event", {}), **event}
    return payload


@pytest.fixture(autouse=True)
def _forget_notes() -> None:
    """Let each test note requests from Slack, even if an earlier test did within the minute."""
    arrivals.forget_notes()


@pytest.fixture(scope="session")
def _fake_slack() -> Iterator[FakeSlack]:
    with FakeSlack() as slack:
        yield slack


@pytest.fixture
def slack(_fake_slack: FakeSlack, settings) -> Iterator[FakeSlack]:
    """Slack, with team T1 in which the app is installed."""
    _fake_slack.reset()
    settings.SLACK_API_URL = _fake_slack.api_url
    yield _fake_slack
    assert _fake_slack.violations() == []


@pytest.fixture
def project(db) -> Project:
    return ready_project("Acme", "Main")


@pytest.fixture
def stranger(db) -> Project:
    """A project of another organization."""
    return create_project(create_organization("Stranger"), "Theirs")


@pytest.fixture
def workspace(project: Project) -> SlackWorkspace:
    return SlackWorkspace.objects.create(
        project=project,
        team_id="T1",
        name="Acme",
        app_id="A1",
        bot_user_id="UBOT",
        bot_token="xoxb-demo",
    )


@pytest.fixture
def repository(project: Project) -> Repository:
    return Repository.objects.create(
        project=project, full_name="acme/shop", clone_url="https://git.example.com/acme/shop.git"
    )


@pytest.fixture
def out_of_credits(project: Project) -> None:
    set_limit(project.organization, AI_CREDITS, 0)


@pytest.fixture
def temporal(temporal_address: str, monkeypatch) -> "Temporal":
    """A Temporal server, with a time limit for busy machines."""
    monkeypatch.setattr(workflow_client, "DEADLINE", timedelta(seconds=20))
    return Temporal(temporal_address)


@pytest.fixture
def no_temporal(settings, monkeypatch) -> None:
    """A Temporal that refuses connections. Earlier connections are not used."""
    settings.TEMPORAL_ADDRESS = "127.0.0.1:1"
    monkeypatch.setattr(workflow_client, "_connection", None)


@pytest.fixture
def hanging_temporal(settings, monkeypatch) -> Iterator[None]:
    """A Temporal that accepts connections but never answers."""
    with silent_server() as port:
        settings.TEMPORAL_ADDRESS = f"127.0.0.1:{port}"
        monkeypatch.setattr(workflow_client, "_connection", None)
        yield


@pytest.fixture
def no_redis(redis_client, settings) -> Iterator[None]:
    """A Redis that refuses connections, for the gates and for Celery."""
    with unreachable_redis(settings, "redis://127.0.0.1:1/0"):
        yield


@pytest.fixture
def hanging_redis(redis_client, settings, monkeypatch) -> Iterator[None]:
    """A Redis that accepts connections but never answers."""
    wait_as_in_production(monkeypatch)
    with silent_server() as port, unreachable_redis(settings, f"redis://127.0.0.1:{port}/0"):
        yield


@contextmanager
def silent_server() -> Iterator[int]:
    """Listen on a port until the block ends, without answering."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        yield listener.getsockname()[1]


@contextmanager
def unreachable_redis(settings, url: str) -> Iterator[None]:
    """Have Django and Celery use Redis at another address until the block ends."""
    before, settings.REDIS_URL = settings.REDIS_URL, url
    broker, current_app.conf.broker_url = current_app.conf.broker_url, url
    _forget_redis()
    try:
        yield
    finally:
        settings.REDIS_URL, current_app.conf.broker_url = before, broker
        _forget_redis()


def _forget_redis() -> None:
    gate_redis.client.cache_clear()
    gate_redis.script.cache_clear()
    gate_redis.health.__init__()


@dataclass(frozen=True)
class Temporal:
    """Questions of the tests to Temporal."""

    address: str

    def has(self, identifier: str) -> bool:
        """Return whether a workflow with this id was ever started."""
        return self.signals(identifier) is not None

    def signals(self, identifier: str) -> list[str] | None:
        """Return the names of the signals sent to a workflow, or None if it was never started."""

        async def ask() -> list[str] | None:
            client = await TemporalClient.connect(self.address)
            try:
                history = await client.get_workflow_handle(identifier).fetch_history()
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return None
                raise
            received = [
                event.workflow_execution_signaled_event_attributes.signal_name
                for event in history.events
            ]
            return [name for name in received if name]

        return asyncio.run(ask())


@dataclass(frozen=True)
class Webhook:
    """The web process, as Slack calls it."""

    client: Client
    slack: FakeSlack

    def deliver(self, payload: dict[str, Any] | bytes, path: str = "/slack/events/", **extra: str):
        """Post a signed payload and return the response. `extra` are WSGI variables.

        Slack must be able to show what the response contains.
        """
        content_type = "application/json" if path == "/slack/events/" else FORM
        request = self.slack.signed(path, payload, content_type=content_type)
        response = self.client.post(
            path, request.body, content_type=content_type, headers=request.headers, **extra
        )
        if response.get("Content-Type") == "application/json":
            assert answer_violations(response.json()) == []
        return response

    def mention(self, **fields: Any) -> dict[str, Any]:
        """Have U1 mention the bot in C1, deliver the event and return the message."""
        message = self.slack.post(**fields)
        assert self.deliver(self.slack.event(message)).status_code == 200
        return message

    def reply(self, text: str, thread_ts: str, **fields: Any) -> dict[str, Any]:
        """Have U1 reply in a thread without naming the bot, deliver it and return the message."""
        message = self.slack.post(text, thread_ts=thread_ts, **fields)
        assert self.deliver(self.slack.event(message, "message")).status_code == 200
        return message


def at_once(requests: Sequence[SignedRequest]) -> list[int]:
    """Deliver signed requests at the same time, each on its own thread; return the statuses.

    As Slack does, one is delivered again if the database was too busy to record it (503).
    """

    def post(request: SignedRequest) -> int:
        content_type = request.headers["Content-Type"]
        answer = Client().post(
            request.path, request.body, content_type=content_type, headers=request.headers
        )
        return answer.status_code

    def deliver(request: SignedRequest) -> int:
        close_old_connections()
        try:
            statuses = (post(request) for _ in range(REDELIVERIES))
            return next((status for status in statuses if status != 503), 503)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(deliver, requests))


@pytest.fixture
def ts() -> str:
    """The `ts` of a message, different in each test."""
    return f"{time.time_ns() // 10**9}.{next(_numbers):06d}"


_numbers = itertools.count(1)
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def webhook(client: Client, slack: FakeSlack, redis_client, db) -> Webhook:
    return Webhook(client, slack)


@pytest.fixture
def task(workspace, repository, webhook, temporal) -> CodingTask:
    """A task of U1, which runs in the thread of their mention."""
    message = webhook.mention()
    return CodingTask.objects.create(
        project=workspace.project,
        repository=repository,
        workspace=workspace,
        channel_id="C1",
        thread_ts=message["ts"],
        owner_slack_user_id="U1",
        title="Look",
        workflow_id=workflow_id("T1", "C1", message["ts"]),
    )


def workflow_of(message: dict[str, Any], channel: str = "C1", team: str = "T1") -> str:
    """Return the id of the workflow that a message starts."""
    return workflow_id(team, channel, message["ts"])
