"""A channel with a project of its own: that project is checked and pays."""

import pytest
from django.core.exceptions import ValidationError

from billing.organizations import create_project
from coding_tasks.models import ChannelDefault, CodingTask, Repository, RepositoryRule
from projects.models import ChannelProject, OAuthAccessToken, Project
from projects.slack.channel_projects import projects_of_channels
from tests.conftest import wait_until
from tests.workflows.fake_gateway import AGENT
from tests.workflows.world import FAR_FUTURE, World
from workflows.models import Mention, Notice


@pytest.fixture
def other(world: World, clone_urls) -> Project:
    """Another project of the organization, with two repositories, which C1 serves."""
    project = create_project(world.project.organization, "Other")
    for name in ("shop", "billing"):
        Repository.objects.create(
            project=project, full_name=f"acme/{name}", clone_url=clone_urls[f"acme/{name}"]
        )
    ChannelProject.objects.create(workspace=world.workspace, channel_id="C1", project=project)
    return project


def block(world: World, project: Project) -> None:
    key = "@posthog/quota-limits/ai_credits"
    world.redis.zadd(key, {project.api_token: FAR_FUTURE.timestamp()})


@pytest.mark.usefixtures("worker")
def test_the_channels_project_pays_for_the_choice_and_for_the_work(world: World, other: Project):
    world.gateway.answer_next("acme/billing")
    world.gateway.hold_next()
    mention = world.start("how are invoices sent?")
    wait_until(lambda: world.gateway.requests(AGENT), what="the agent asking the model")
    task = CodingTask.objects.get()
    assert (task.project, task.repository.project) == (other, other)
    assert set(OAuthAccessToken.objects.values_list("project", flat=True)) == {other.pk}
    world.gateway.release()
    world.wait_for_end(mention, Mention.State.ANSWERED)


@pytest.mark.usefixtures("worker")
def test_a_block_of_the_channels_project_refuses_and_one_of_the_workspaces_does_not(
    world: World, other: Project
):
    block(world, world.project)
    world.gateway.script("acme/billing", "By mail.")
    assert world.handle("how are invoices sent?").state == Mention.State.ANSWERED
    block(world, other)
    refused = world.handle("how are invoices sent?")
    assert refused.state == Mention.State.REFUSED
    assert len(world.notices(Notice.Kind.DENIAL)) == 1


@pytest.mark.usefixtures("worker")
def test_only_rules_and_defaults_of_the_channels_project_apply(world: World, other: Project):
    theirs = world.add_repository("acme/main", "file:///nowhere")
    ChannelDefault.objects.create(workspace=world.workspace, channel_id="C1", repository=theirs)
    RepositoryRule.objects.create(project=world.project, keyword="invoices", repository=theirs)
    billing = Repository.objects.get(project=other, full_name="acme/billing")
    RepositoryRule.objects.create(project=other, keyword="sent", repository=billing)
    assert world.handle("how are invoices sent?").state == Mention.State.ANSWERED
    assert CodingTask.objects.get().repository == billing


def test_other_channels_serve_the_workspaces_project(world: World, other: Project):
    assert world.workspace.project_in("C1") == other
    assert world.workspace.project_in("C2") == world.project
    places = [(world.workspace, "C1"), (world.workspace, "C2")]
    assert projects_of_channels(places) == {
        (world.workspace, "C1"): other,
        (world.workspace, "C2"): world.project,
    }


def test_a_project_of_another_organization_is_never_served(world: World, stranger: Project):
    named = ChannelProject(workspace=world.workspace, channel_id="C1", project=stranger)
    with pytest.raises(ValidationError, match="another organization"):
        named.full_clean()
    named.save()  # as if the project had moved to another organization later
    assert world.workspace.project_in("C1") == world.project
    places = [(world.workspace, "C1")]
    assert projects_of_channels(places) == {(world.workspace, "C1"): world.project}
