"""A team with a workspace and a repository."""

import pytest

from coding_tasks.models import Repository
from projects.models import Organization, Project, SlackWorkspace


@pytest.fixture
def project(db) -> Project:
    organization = Organization.objects.create(name="Acme")
    return Project.objects.create(organization=organization, name="Default")


@pytest.fixture
def workspace(project) -> SlackWorkspace:
    return SlackWorkspace.objects.create(
        project=project, team_id="T1", bot_user_id="UBOT", bot_token="xoxb-demo"
    )


@pytest.fixture
def repository(project) -> Repository:
    return Repository.objects.create(
        project=project, full_name="acme/shop", clone_url="file:///srv/git/shop.git"
    )
