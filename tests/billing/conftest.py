"""Fixtures for billing: projects of two organizations, and a client that posts usage events."""

import pytest
from hypothesis import HealthCheck, settings

from billing.organizations import create_organization, create_project
from projects.models import Project
from tests.billing.world import Deliveries
from tests.examples import examples
from tests.ready_project import ready_project

# Examples use a database, and machines can be busy: only the test timeout applies.
settings.register_profile(
    "unhurried",
    deadline=None,
    max_examples=examples(60),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unhurried")


@pytest.fixture
def project(db) -> Project:
    """The project of a fresh organization without limits."""
    return ready_project("Acme", "Main")


@pytest.fixture
def stranger(db) -> Project:
    """A project of another organization."""
    return create_project(create_organization("Strangers"), "Theirs")


@pytest.fixture
def deliveries(client) -> Deliveries:
    """The gateway's side of `POST /api/usage_events/`."""
    return Deliveries(client)
