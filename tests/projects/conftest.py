"""An organization with two projects, and a stranger: another organization with its own."""

import pytest

from projects import credential_cache
from projects.models import Organization, Project, User


@pytest.fixture(autouse=True)
def nothing_remembered(redis_client):
    """Start each test with an empty credential cache and no counted log-in attempts."""
    credential_cache.forget_all()
    yield
    credential_cache.forget_all()


@pytest.fixture
def organization(db) -> Organization:
    return Organization.objects.create(name="Acme")


@pytest.fixture
def project(organization) -> Project:
    return Project.objects.create(organization=organization, name="Main")


@pytest.fixture
def sibling(organization) -> Project:
    return Project.objects.create(organization=organization, name="Sibling")


@pytest.fixture
def foreign_project(db) -> Project:
    stranger = Organization.objects.create(name="Stranger")
    return Project.objects.create(organization=stranger, name="Theirs")


@pytest.fixture
def member(organization) -> User:
    user = User.objects.create_user("ada", "ada@example.com", "a long password")
    organization.members.add(user)
    return user
