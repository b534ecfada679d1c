"""Fixtures for quota: an organization with projects, whose accounts a test publishes."""

from collections.abc import Callable, Iterator

import pytest

from projects import credential_cache
from projects.models import Organization, Project
from projects.redis_connection import redis_connection
from quota.published import marker, redis_client
from quota.published.reconciler import Reconciler
from tests.quota.world import Accounts, OwnRedis
from tests.redis_timeouts import wait_as_in_production


@pytest.fixture(autouse=True)
def _a_process_that_just_started(monkeypatch) -> None:
    monkeypatch.setattr(redis_client, "health", redis_client.Health())
    credential_cache.forget_all()


@pytest.fixture
def organization(redis_client) -> Organization:
    return Organization.objects.create(name="Acme")


@pytest.fixture
def project(organization) -> Project:
    return Project.objects.create(organization=organization, name="Main")


@pytest.fixture
def accounts(project) -> Accounts:
    """The accounts of the project's organization, published as not limited."""
    published = Accounts(project.organization)
    published.allow()
    return published


@pytest.fixture
def stranger(redis_client) -> Project:
    """A project of another organization, published as not limited."""
    other = Project.objects.create(
        organization=Organization.objects.create(name="Strangers"), name="Theirs"
    )
    Accounts(other.organization).allow()
    return other


@pytest.fixture
def trusted_redis(redis_client) -> Callable[[], None]:
    """Return a function with which a reconciler sets the marker, so that Redis is trusted."""

    def _trust() -> None:
        Reconciler().tick()
        assert marker.current()

    return _trust


@pytest.fixture
def production_timeouts(redis_client, monkeypatch) -> None:
    """Clients made from now on have production's timeouts."""
    wait_as_in_production(monkeypatch)


@pytest.fixture
def own_redis(tmp_path, settings) -> Iterator[OwnRedis]:
    """A Redis server of the test's own, which the whole process uses until the test ends."""
    server = OwnRedis(tmp_path)
    settings.REDIS_URL = server.url
    remembering = (redis_client.client, redis_client.script, redis_connection)
    for remembers in remembering:
        remembers.cache_clear()
    yield server
    redis_client.client().close()
    for remembers in remembering:
        remembers.cache_clear()
    server.stop()
