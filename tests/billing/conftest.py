"""A small world for billing: two organizations, and events as the gateway sends them."""

import pytest
from hypothesis import HealthCheck, settings

from billing.accounts import create_organization, create_project
from projects.models import Project
from tests.billing.world import Deliveries
from tests.examples import examples

# Examples touch a database on machines that are busy: only the tests' own timeout bounds them.
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
    return create_project(create_organization("Acme"), "Main")


@pytest.fixture
def stranger(db) -> Project:
    """A project of another organization."""
    return create_project(create_organization("Strangers"), "Theirs")


@pytest.fixture
def deliveries(client) -> Deliveries:
    """The gateway's side of `POST /api/usage_events/`."""
    return Deliveries(client)
