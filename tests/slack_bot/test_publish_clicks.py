"""Clicks on the button that has a change pushed, as Slack delivers them."""

import zlib
from datetime import UTC, datetime

import pytest
from django.core import signing
from django.utils import timezone

from coding_tasks.models import CodingTask, RunChange, TaskRun
from projects.models import SlackWorkspace
from tests.slack_bot.conftest import captured
from workflows.models import Mention
from workflows.results import confirmations

PATH = "/slack/interactivity/"


@pytest.fixture
def run(workspace, repository) -> TaskRun:
    """A run of U1 whose change waits for U1's agreement."""
    Mention.objects.create(
        workspace=workspace, team_id="T1", channel_id="C1", ts="100.1", thread_ts="100.1",
        user_id="U1", text="x",
    )  # fmt: skip
    task = CodingTask.objects.create(
        project=workspace.project, repository=repository, workspace=workspace, channel_id="C1",
        thread_ts="100.1", owner_slack_user_id="U1", title="x", workflow_id="w",
    )  # fmt: skip
    run = TaskRun.objects.create(task=task, message_ts="100.1", request="x")
    RunChange.objects.create(
        run=run, commit="a" * 40, branch="b", files=1, added=1, removed=0,
        packed_patch=zlib.compress(b""), description=b"", questions=["odd"],
    )  # fmt: skip
    return run


def click(webhook, value: str, *, user: str = "U1", team: str = "T1", own_team: str = "T1") -> bool:
    """Deliver a click; return whether the change is agreed to."""
    payload = captured("repository_chosen")
    payload["actions"] = [{"type": "button", "action_id": "tollgate_publish", "value": value}]
    payload["user"] |= {"id": user, "team_id": own_team}
    payload["team"] = {"id": team, "domain": "x"}
    assert webhook.deliver({"payload": payload}, PATH).status_code == 200
    return RunChange.objects.get().agreed_at is not None


def value_of(run: TaskRun) -> str:
    return confirmations.ask(run, ("odd",)).blocks[-1]["elements"][0]["value"]


def test_the_requesters_click_counts_once(webhook, run):
    assert click(webhook, value_of(run))
    first = RunChange.objects.get().agreed_at
    RunChange.objects.update(settled_at=timezone.now())
    click(webhook, value_of(run))
    assert RunChange.objects.get().agreed_at == first
    assert not confirmations.to_publish().exists()


def test_the_click_counts_in_a_channel_that_another_customer_hosts(webhook, run, stranger):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    assert click(webhook, value_of(run), team="T2")


@pytest.mark.parametrize("strange", [{"user": "U2"}, {"team": "T2", "own_team": "T2"}])
def test_a_strangers_click_does_not_count(webhook, run, stranger, strange):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    assert not click(webhook, value_of(run), **strange)


def test_a_forged_button_does_not_count(webhook, run):
    for forged in (run.pk.hex, signing.Signer(salt="other").sign(run.pk.hex), "", "\0", ":"):
        assert not click(webhook, forged)


def test_a_click_after_the_change_was_erased_does_nothing(webhook, run):
    value = value_of(run)
    RunChange.objects.all().delete()
    payload = captured("repository_chosen")
    payload["actions"] = [{"type": "button", "action_id": "tollgate_publish", "value": value}]
    assert webhook.deliver({"payload": payload}, PATH).status_code == 200
    assert not confirmations.to_publish().exists()


def test_a_repository_that_is_down_for_long_is_given_up_and_reported(run):
    RunChange.objects.update(agreed_at=datetime(2026, 1, 1, tzinfo=UTC))
    repository = run.task.repository
    repository.clone_url = "file:///nowhere"
    repository.save()
    confirmations.publish(RunChange.objects.get())
    assert not confirmations.to_publish().exists()
