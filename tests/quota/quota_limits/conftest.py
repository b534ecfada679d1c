"""Fixtures to ask the quota endpoint with."""

import pytest

from projects.authentication import credentials
from tests.quota.quota_limits.requests import bearer, path


@pytest.fixture
def key(project) -> str:
    return credentials.issue_personal_api_key(
        project.organization, "poller", ["project:read"], [project]
    )[1]


@pytest.fixture
def ask(client, key):
    """Return a function that asks for a project's quota with its key, or with other headers."""

    def _ask(project, **headers):
        return client.get(path(project.pk), headers=bearer(key) | headers)

    return _ask
