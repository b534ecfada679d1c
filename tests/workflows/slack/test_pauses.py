"""A workspace that limits us or doesn't answer is left alone, and delays no other."""

from datetime import timedelta

import pytest
from django.utils import timezone

from projects.models import SlackWorkspace
from tests.workflows.test_notices import deliver
from tests.workflows.test_notices import mention as mention
from tests.workflows.test_notices import slack as slack
from tests.workflows.test_notices import workspace as workspace
from workflows import notices, tasks
from workflows.models import Mention, Notice, SlackPause
from workflows.slack import client, pauses

THEIR_TOKEN = "xoxb-theirs"


@pytest.fixture
def theirs(slack, workspace) -> Mention:
    """A mention in another workspace of the same Slack."""
    slack.install("T2", THEIR_TOKEN)
    slack.add_channel("C9", team="T2")
    other = SlackWorkspace.objects.create(
        project=workspace.project, team_id="T2", bot_user_id="UBOT", bot_token=THEIR_TOKEN
    )
    return Mention.objects.create(
        workspace=other, team_id="T2", channel_id="C9", ts="9.1", thread_ts="9.1", user_id="U9",
        text="x",
    )  # fmt: skip


def claim(mention: Mention, key: str, **fields) -> Notice:
    mention.thread_ts = f"{len(key)}.{mention.ts.replace('.', '')}"  # each in a thread of its own
    return notices.claim(key, Notice.Kind.ANSWER, mention, key, **fields)


def pause_of(mention: Mention, method: str = "") -> SlackPause:
    return SlackPause.objects.get(workspace=mention.workspace, method=method)


def test_a_rate_limit_holds_for_its_method_in_its_workspace_only(slack, mention, theirs):
    slack.fail_next("chat.postMessage", "ratelimited", retry_after=70)
    before = timezone.now()
    deliver(claim(mention, "a"))
    second = deliver(claim(mention, "bb"))
    assert (second.state, second.attempts) == ("pending", 0)
    assert second.next_attempt_at >= before + timedelta(seconds=70)
    assert len(slack.calls("chat.postMessage")) == 1
    assert deliver(claim(theirs, "ccc")).state == "sent"
    alone = claim(mention, "dddd", only_to_user=True)
    assert deliver(alone).state == "sent"


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Calls are given up after a fifth of a second."""
    monkeypatch.setattr(notices, "client_for", lambda each: client.client_for(each, timeout=0.2))


def test_a_silent_workspace_is_called_once_and_others_go_on(slack, mention, theirs, impatient):
    slack.hang_next("chat.postMessage", 1)
    silent = [claim(mention, "x" * number) for number in range(1, 6)]
    # Its notices are the oldest, so they come first.
    Notice.objects.update(next_attempt_at=timezone.now() - timedelta(minutes=1))
    other = claim(theirs, "theirs")
    tasks.deliver_pending_notices()
    other.refresh_from_db()
    assert other.state == "sent"
    assert len(slack.calls("chat.postMessage")) <= 1 + 1
    assert {Notice.objects.get(pk=each.pk).state for each in silent} <= {"pending", "sending"}
    assert pause_of(mention).until > timezone.now()


def test_one_caller_tries_a_silent_workspace_again(slack, mention, impatient):
    slack.hang_next("chat.postMessage", 1)
    deliver(claim(mention, "a"))
    SlackPause.objects.update(until=timezone.now())
    now = timezone.now()
    first = pauses.find(mention.workspace_id, {"chat.postMessage"}, now)
    second = pauses.find(mention.workspace_id, {"chat.postMessage"}, now)
    assert (first.until, first.is_trial) == (None, True)
    assert second.until is not None


def test_a_workspace_that_answers_again_is_not_left_alone(slack, mention, impatient):
    slack.hang_next("chat.postMessage", 1)
    deliver(claim(mention, "a"))
    SlackPause.objects.update(until=timezone.now())
    assert deliver(claim(mention, "bb")).state == "sent"
    assert not SlackPause.objects.exists()


def test_silence_is_left_alone_for_longer_and_longer_but_no_longer_than_a_minute(workspace):
    now = timezone.now()
    silence = client.Failure(client.Meaning.UNKNOWN, "TimeoutError", is_silence=True)
    waits = []
    for _ in range(6):
        pauses.note_failure(workspace.pk, silence, now)
        waits.append((SlackPause.objects.get().until - now).total_seconds())
    assert waits == [5, 10, 20, 40, 60, 60]


def test_a_refused_connection_and_a_lost_answer_do_not_count_as_silence(slack, mention):
    slack.drop_answer_next("chat.postMessage")
    deliver(claim(mention, "a"))
    assert not SlackPause.objects.exists()


def test_a_notice_for_a_workspace_that_is_silent_for_a_day_is_given_up(slack, mention):
    answer = claim(mention, "a")
    old = timezone.now() - timedelta(days=1, seconds=1)
    Notice.objects.update(created_at=old)
    later = timezone.now() + timedelta(minutes=1)
    SlackPause.objects.create(workspace=mention.workspace, method="", until=later)
    answer.refresh_from_db()
    assert deliver(answer).state == "given_up"
    assert (answer.destination, answer.text) == ("page", "a")
    assert slack.calls() == []


def test_workspaces_take_turns(slack, mention, theirs, monkeypatch):
    monkeypatch.setattr(tasks, "_BATCH", 2)
    for number in range(1, 6):
        claim(mention, "x" * number)
    Notice.objects.update(next_attempt_at=timezone.now() - timedelta(minutes=1))
    other = claim(theirs, "theirs")
    tasks.deliver_pending_notices()
    other.refresh_from_db()
    assert other.state == "sent"
