"""The commands an operator runs after a restore, while rotating a secret, and for an erasure."""

import pytest
from cryptography.fernet import InvalidToken
from django.core.management import call_command

from coding_tasks.models import CodingTask, Repository, TaskRun
from projects.models import ChangeCursor, Organization, Project, SlackWorkspace
from workflows.models import ERASED, FollowUp, Mention, Notice, ThreadReply

pytestmark = pytest.mark.django_db


@pytest.fixture
def workspace() -> SlackWorkspace:
    organization = Organization.objects.create(name="Acme")
    project = Project.objects.create(organization=organization, name="Bot")
    return SlackWorkspace.objects.create(
        project=project, team_id="T1", bot_user_id="UBOT", bot_token="xoxb-secret"
    )


def test_a_rotated_feed_has_another_identity(capsys):
    ChangeCursor.objects.get_or_create(pk=1)
    before = ChangeCursor.objects.get().feed
    call_command("rotate_change_feed")
    assert ChangeCursor.objects.get().feed != before


def test_after_reencryption_the_old_secret_key_is_not_needed(workspace, settings, capsys):
    old, settings.SECRET_KEY = settings.SECRET_KEY, "the new secret key"
    settings.SECRET_KEY_FALLBACKS = [old]
    call_command("reencrypt_secrets")
    settings.SECRET_KEY_FALLBACKS = []
    assert SlackWorkspace.objects.get().bot_token == "xoxb-secret"


def test_without_reencryption_the_old_secret_key_is_still_needed(workspace, settings):
    settings.SECRET_KEY = "the new secret key"
    with pytest.raises(InvalidToken):
        SlackWorkspace.objects.get()


def test_a_user_of_an_installation_for_a_whole_organization_can_be_erased(workspace):
    SlackWorkspace.objects.update(team_id="", enterprise_id="E1")
    message = {"workspace": workspace, "channel_id": "C1", "ts": "1.1", "thread_ts": "1.1"}
    Mention.objects.create(team_id="E1", user_id="U1", text="private words", **message)
    call_command("erase_slack_user", "E1", "U1")
    assert Mention.objects.get().text == ERASED


def test_erasing_a_slack_user_leaves_other_users_words(workspace, capsys):
    place = {"workspace": workspace, "channel_id": "C1", "thread_ts": "1.1"}
    repository = Repository.objects.create(
        project=workspace.project, full_name="a/b", clone_url="https://example.com/a/b"
    )
    for number, user in enumerate(["U1", "U2"], start=1):
        message = {**place, "ts": f"{number}.1", "user_id": user, "text": "private words"}
        Mention.objects.create(team_id="T1", **message)
        FollowUp.objects.create(addressed=False, workflow_id="w", **message)
        ThreadReply.objects.create(**message)
        Notice.objects.create(
            key=f"answer:{number}",
            kind=Notice.Kind.ANSWER,
            user_id=user,
            text="private words",
            **place,
        )
        task = CodingTask.objects.create(
            workspace=workspace,
            channel_id="C1",
            thread_ts=f"{number}.1",
            project=workspace.project,
            repository=repository,
            owner_slack_user_id=user,
            title="private words",
            workflow_id=f"w{number}",
        )
        TaskRun.objects.create(task=task, message_ts="1.1", request="private words", answer="x")

    call_command("erase_slack_user", "T1", "U1")

    assert Mention.objects.get(user_id="U1").text == ERASED
    assert FollowUp.objects.get(user_id="U1").text == ERASED
    assert Notice.objects.get(user_id="U1").text == ERASED
    assert ThreadReply.objects.get(user_id="U1").text == ERASED
    assert ThreadReply.objects.get(user_id="U2").text == "private words"
    assert Notice.objects.get(user_id="U2").text == "private words"
    assert TaskRun.objects.get(task__owner_slack_user_id="U1").answer == ERASED
    assert CodingTask.objects.get(owner_slack_user_id="U1").title == ERASED
    assert Mention.objects.get(user_id="U2").text == "private words"
    assert TaskRun.objects.get(task__owner_slack_user_id="U2").request == "private words"
