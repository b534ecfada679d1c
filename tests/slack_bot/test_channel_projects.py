"""What the web process asks about the project of a channel: gates, status, and the picker."""

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from billing.organizations import create_project
from coding_tasks.models import Repository
from projects.models import ChannelProject, Project, User
from tests.slack_bot.conftest import captured
from workflows import tasks
from workflows.models import Mention, Notice
from workflows.slack import picker

FAR = datetime(2100, 1, 1, tzinfo=UTC).timestamp()


@pytest.fixture
def other(workspace, project) -> Project:
    """Another project of the organization, which C1 serves."""
    other = create_project(project.organization, "Other")
    ChannelProject.objects.create(workspace=workspace, channel_id="C1", project=other)
    return other


def block(redis_client, project: Project) -> None:
    redis_client.zadd("@posthog/quota-limits/ai_credits", {project.api_token: FAR})


def mention_in_both(webhook) -> None:
    for channel in ("C1", "C2"):
        message = webhook.slack.post(channel=channel)
        event = webhook.slack.event(message, channel=channel)
        assert webhook.deliver(event).status_code == 200


def test_a_mention_is_refused_if_its_channels_project_is_blocked(
    webhook, other, temporal, redis_client
):
    block(redis_client, other)
    mention_in_both(webhook)
    states = dict(Mention.objects.values_list("channel_id", "state"))
    assert states == {"C1": "refused", "C2": "started"}


def test_a_mention_starts_although_the_workspaces_project_is_blocked(
    webhook, other, temporal, project, redis_client
):
    block(redis_client, project)
    mention_in_both(webhook)
    states = dict(Mention.objects.values_list("channel_id", "state"))
    assert states == {"C1": "started", "C2": "refused"}


def test_a_reply_takes_up_a_refused_request_with_the_channels_credits(
    webhook, other, temporal, project, redis_client
):
    block(redis_client, other)
    message = webhook.mention()
    webhook.reply("please", message["ts"])
    assert Mention.objects.count() == 1
    redis_client.delete("@posthog/quota-limits/ai_credits")
    block(redis_client, project)
    webhook.reply("and now?", message["ts"])
    assert Mention.objects.filter(state="started").count() == 1


def test_the_picker_offers_the_repositories_of_the_channels_project(
    webhook, other, temporal, repository
):
    Repository.objects.create(project=other, full_name="acme/api", clone_url="https://x/y")
    webhook.mention()
    payload = captured("repository_searched")
    payload |= {"block_id": picker.block_id(Mention.objects.get().pk), "value": "acme"}
    payload["user"]["id"] = "U1"
    answer = webhook.deliver({"payload": payload}, "/slack/interactivity/").json()
    assert [option["text"]["text"] for option in answer["options"]] == ["acme/api"]


def test_the_admin_lists_who_pays_in_few_queries(
    webhook, other, temporal, django_assert_max_num_queries
):
    mention_in_both(webhook)
    client = Client()
    client.force_login(User.objects.create_superuser("root", "r@example.com", "a password"))
    with django_assert_max_num_queries(13):
        page = client.get(reverse("admin:workflows_mention_changelist")).content.decode()
    assert ("Acme / Other" in page, "Acme / Main" in page) == (True, True)


def test_staff_without_the_right_cannot_change_who_pays(db, workspace, stranger):
    viewer = User.objects.create_user("viewer", "v@example.com", "a password", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_channelproject"))
    client = Client()
    client.force_login(viewer)
    address = reverse("admin:projects_channelproject_add")
    form = {"workspace": workspace.pk, "channel_id": "C1", "project": stranger.pk}
    assert client.post(address, form).status_code == 403
    viewer.user_permissions.add(Permission.objects.get(codename="add_channelproject"))
    fresh = Client()
    fresh.force_login(User.objects.get(pk=viewer.pk))
    assert fresh.post(address, form).status_code == 200  # of another organization: refused
    assert not ChannelProject.objects.exists()


def test_a_refusal_is_posted_in_the_channel(webhook, other, temporal, redis_client):
    block(redis_client, other)
    webhook.mention()
    tasks.deliver_pending_notices()
    assert Notice.objects.get().kind == Notice.Kind.DENIAL
