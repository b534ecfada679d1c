"""Fixtures for billing: projects of two organizations, and a client that posts usage events."""

import pytest

from billing.organizations import create_organization, create_project
from projects.models import Project
from tests.billing.world import Deliveries
from tests.ready_project import ready_project


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
