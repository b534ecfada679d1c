"""Fixtures of the workflow tests: a world on real servers, with Slack and the model as fakes."""

import os
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from billing.organizations import create_organization, create_project
from projects.models import Project
from tests.fakes import FakeSlack
from tests.git_repositories import make_repository
from tests.workflows.fake_gateway import FakeGateway
from tests.workflows.outage import Outage, database_outage
from tests.workflows.worker_thread import WorkerThread
from tests.workflows.world import World, make_world
from workflows.mention_types import MentionInput
from workflows.temporal import client


@pytest.fixture(scope="session")
def _slack() -> Iterator[FakeSlack]:
    with FakeSlack() as slack:
        yield slack


@pytest.fixture(scope="session")
def _gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as gateway:
        yield gateway


@pytest.fixture(scope="session")
def clone_urls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two repositories that a worker can clone, by name."""
    directory: Path = tmp_path_factory.mktemp("repositories")
    readme = {"README.md": "# {name}\nThe answer is in the README.\n"}
    return {
        f"acme/{name}": make_repository(directory / name, readme) for name in ("shop", "billing")
    }


@pytest.fixture
def world(
    transactional_db, redis_client, temporal_address, _slack, _gateway, settings, monkeypatch
) -> Iterator[World]:
    """A team with credits but no repository yet; no worker runs."""
    _slack.reset()
    _gateway.reset()
    settings.SLACK_API_URL = _slack.api_url
    settings.GATEWAY_URL = _gateway.url
    settings.TEMPORAL_TASK_QUEUE = f"test-{uuid.uuid4()}"
    # Temporal answers, however busy this machine is.
    monkeypatch.setattr(client, "DEADLINE", timedelta(seconds=20))
    # Activities leave no connection behind in threads that outlive the test.
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    yield make_world(_slack, _gateway, redis_client)
    assert _slack.violations() == []


@pytest.fixture
def worker(world: World, settings) -> Iterator[WorkerThread]:
    """A worker for the world's task queue."""
    with WorkerThread(settings.TEMPORAL_TASK_QUEUE) as running:
        yield running
        world.gateway.release()


@pytest.fixture
def shop(world: World, clone_urls: dict[str, str]) -> World:
    """The world with one repository, acme/shop."""
    world.add_repository("acme/shop", clone_urls["acme/shop"])
    return world


@pytest.fixture
def two_repositories(shop: World, clone_urls: dict[str, str]) -> World:
    """The world with two repositories, acme/shop and acme/billing."""
    shop.add_repository("acme/billing", clone_urls["acme/billing"])
    return shop


@pytest.fixture
def stranger(world: World) -> Project:
    """A project of another organization."""
    return create_project(create_organization("Stranger"), "Theirs")


@pytest.fixture
def hurried(monkeypatch) -> Callable[..., None]:
    """Return a function that gives new workflows other times and attempts."""

    def hurry(**fields: float) -> None:
        def impatient(**given: Any) -> MentionInput:
            return MentionInput(**(given | fields))

        monkeypatch.setattr("workflows.temporal.client.MentionInput", impatient)

    return hurry


@pytest.fixture
def outage() -> Iterator[Outage]:
    """The database of workers started after this fixture, which can be switched off."""
    with database_outage() as verbs:
        yield verbs


@pytest.fixture
def environment(world: World, settings) -> dict[str, str]:
    """The environment for a process that uses the same servers and database."""
    database = connection.settings_dict
    url = f"sqlite:///{database['NAME']}"
    if connection.vendor == "postgresql":
        url = f"postgres://{database['USER']}@{database['HOST']}:{database['PORT']}/"
        url += database["NAME"]
    return {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": settings.SECRET_KEY,
        "DATABASE_URL": url,
        "REDIS_URL": settings.REDIS_URL,
        "TEMPORAL_ADDRESS": settings.TEMPORAL_ADDRESS,
        "SLACK_API_URL": settings.SLACK_API_URL,
        "GATEWAY_URL": settings.GATEWAY_URL,
        "SLACK_SIGNING_SECRET": settings.SLACK_SIGNING_SECRETS[0],
        "GATEWAY_SERVICE_TOKEN": settings.GATEWAY_SERVICE_TOKENS[0],
        "GIT_ALLOWED_PROTOCOLS": "file",
    }
