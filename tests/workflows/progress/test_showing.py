"""A thread shows a run's progress while it works, and no longer afterwards."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from coding_tasks.agent_worker.exchange import Exchange
from coding_tasks.agents.events import CommandRun, Event, FileEdited, Message, ToolUsed, to_json
from coding_tasks.models import TaskRun
from coding_tasks.publishing.branches import branch_of
from tests.workflows.messages.test_edits import run as run
from tests.workflows.messages.test_edits import texts
from tests.workflows.test_notices import mention as mention
from tests.workflows.test_notices import slack as slack
from tests.workflows.test_notices import workspace as workspace
from workflows import notices, tasks
from workflows.models import ERASED, Notice, SlackPause
from workflows.progress import showing, stop_button


@pytest.fixture
def at_work(run, settings, tmp_path: Path) -> TaskRun:
    """A run that has worked for a quarter of a minute, and has reported nothing."""
    settings.AGENT_EXCHANGE_DIRECTORY = str(tmp_path)
    run.task.agent = "small"
    run.task.save()
    TaskRun.objects.update(started_at=timezone.now() - timedelta(seconds=15))
    return run


def report(run: TaskRun, *events: Event, settings) -> None:
    """Have the agent worker write these events."""
    attempt = Exchange(Path(settings.AGENT_EXCHANGE_DIRECTORY)).attempt(str(run.pk), "attempt-1")
    attempt.begin()
    with attempt.write_events() as file:
        for event in events:
            file.write(json.dumps(to_json(event)).encode() + b"\n")


@pytest.fixture
def reported(at_work, settings) -> TaskRun:
    """The run after two steps."""
    steps = (Message("I will look."), FileEdited("a.py"), CommandRun("pytest -q"))
    report(at_work, *steps, settings=settings)
    return at_work


def look() -> None:
    """Let the sweep look, and send what is due, as if the waits had passed."""
    showing.update(timezone.now())
    Notice.objects.filter(kind="progress").update(next_attempt_at=timezone.now())
    SlackPause.objects.all().delete()
    tasks.deliver_pending_notices()


def words_of(message) -> str:
    return json.dumps(message["blocks"], ensure_ascii=False)


# --- When ----------------------------------------------------------------------------------------
def test_a_run_that_reports_steps_is_shown(slack, mention, reported):
    branch = branch_of(reported.task).name
    look()
    [posted] = slack.bot_messages("C1", mention.ts)
    assert posted["text"] == "Working on *a/b*. Step 2: `runs pytest -q`"
    assert f"Working on *a/b* on `{branch}`" in words_of(posted)
    assert "10 s · 0.00 credits so far" in words_of(posted)
    button = posted["blocks"][-1]["elements"][0]
    assert stop_button.run_of(button["value"]) == reported.pk


def test_a_quick_run_is_not_shown(slack, mention, reported):
    TaskRun.objects.update(started_at=timezone.now() - timedelta(seconds=5))
    look()
    assert texts(slack, mention) == []


def test_a_run_without_steps_is_shown_after_half_a_minute(slack, mention, at_work):
    look()
    assert texts(slack, mention) == []
    TaskRun.objects.update(started_at=timezone.now() - timedelta(seconds=31))
    look()
    assert texts(slack, mention) == ["Working on *a/b*. Reading and thinking…"]


def test_the_agent_that_only_reads_is_shown_too(slack, mention, at_work):
    at_work.task.agent = "reader"
    at_work.task.save()
    TaskRun.objects.update(started_at=timezone.now() - timedelta(seconds=31))
    look()
    assert len(texts(slack, mention)) == 1


def test_a_task_without_a_thread_shows_nothing(slack, reported):
    task = reported.task
    task.origin, task.workspace = "api", None
    task.save()
    look()
    assert slack.calls() == []


# --- Edits ---------------------------------------------------------------------------------------
def test_the_next_step_is_shown_in_the_same_message(slack, mention, reported, settings):
    look()
    attempt = Exchange(Path(settings.AGENT_EXCHANGE_DIRECTORY)).latest(str(reported.pk))
    with (attempt.folder / "events.jsonl").open("ab") as file:
        file.write(json.dumps(to_json(ToolUsed("search", "total"))).encode() + b"\n")
    look()
    [text] = texts(slack, mention)
    assert text.endswith("Step 3: `search total`")
    assert len(slack.calls("chat.postMessage")) == 1


def test_nothing_new_is_no_edit(slack, reported):
    for _ in range(3):
        look()
    assert len(slack.calls()) == 1


def test_many_runs_of_a_workspace_share_its_edits(slack, mention, reported):
    for number in range(20):
        TaskRun.objects.create(
            task=reported.task, message_ts=f"{number}.5", request="x", state="running",
            started_at=timezone.now() - timedelta(seconds=15),
        )  # fmt: skip
    look()
    TaskRun.objects.update(started_at=timezone.now() - timedelta(seconds=25))
    before = timezone.now()
    showing.update(before)
    edit = Notice.objects.get(kind="progress", state="pending")
    assert edit.next_attempt_at >= before + timedelta(seconds=30)


def test_what_an_agent_reports_pings_nobody_and_breaks_nothing(slack, mention, at_work, settings):
    hostile = "echo `<!channel>` <@U2> ``` & \n *x* \u202e@here " + "y" * 5000
    report(at_work, CommandRun(hostile), settings=settings)
    look()
    [posted] = slack.bot_messages("C1", mention.ts)
    shown = words_of(posted)
    assert "<!channel>" not in shown
    assert "<@U2>" not in shown
    assert "&lt;!channel&gt;" in shown
    assert "```" not in shown
    assert posted["blocks"][0]["text"]["verbatim"]


# --- The end -------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", ["paused", "failed", "stopped"])
def test_the_progress_of_a_run_that_no_longer_works_is_deleted(slack, mention, reported, state):
    look()
    TaskRun.objects.update(state=state)
    look()
    assert texts(slack, mention) == []


def test_progress_stays_while_the_change_is_published(slack, mention, reported):
    look()
    TaskRun.objects.update(state="succeeded", finished_at=timezone.now(), answer="42")
    look()
    assert len(texts(slack, mention)) == 1
    run = TaskRun.objects.get()
    notices.deliver(notices.claim_answer(run, mention))
    assert texts(slack, mention) == ["42"]


def test_progress_does_not_stay_for_ever_if_the_answer_is_never_claimed(slack, mention, reported):
    look()
    long_ago = timezone.now() - showing.PUBLISHING
    TaskRun.objects.update(state="succeeded", finished_at=long_ago)
    look()
    assert texts(slack, mention) == []


def test_a_run_that_goes_on_after_a_pause_is_shown_again(slack, mention, reported):
    look()
    TaskRun.objects.update(state="paused")
    look()
    TaskRun.objects.update(state="running")
    look()
    assert len(texts(slack, mention)) == 1
    TaskRun.objects.update(state="stopped")
    look()
    assert texts(slack, mention) == []


def test_progress_of_an_erased_run_is_deleted_and_not_shown_again(slack, mention, reported):
    look()
    TaskRun.objects.update(state="stopped")
    Notice.objects.update(text=ERASED, blocks=[])
    look()
    assert texts(slack, mention) == []


@pytest.mark.case("U4")
def test_a_bot_that_was_removed_from_the_channel_answers_directly(slack, mention, reported):
    look()
    slack.add_channel("C1", is_member=False)
    TaskRun.objects.update(started_at=timezone.now() - timedelta(minutes=2))
    look()
    assert Notice.objects.get(kind="progress").state == "given_up"
    TaskRun.objects.update(state="succeeded", finished_at=timezone.now(), answer="42")
    answer = notices.claim_answer(TaskRun.objects.get(), mention)
    notices.deliver(answer)
    answer.refresh_from_db()
    assert (answer.state, answer.destination) == ("sent", "dm")
    assert [each["text"] for each in slack.direct_messages("U1")] == ["42"]
