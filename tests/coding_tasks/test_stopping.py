"""Stopping a task ends its runs and tokens, and a running attempt leaves nothing behind."""

import pytest

from coding_tasks import runs, stopping
from coding_tasks.failures import OutOfCredits, RunStopped
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.runs import TIME_LIMIT
from projects.authentication.credentials import mint_run_token
from projects.models import OAuthAccessToken


@pytest.fixture
def run(project, workspace, repository) -> TaskRun:
    task = CodingTask.objects.create(
        project=project,
        repository=repository,
        workspace=workspace,
        channel_id="C1",
        thread_ts="100.1",
        owner_slack_user_id="U1",
        title="what is this?",
        workflow_id="mention-1",
    )
    return TaskRun.objects.create(task=task, message_ts="100.1", request="what is this?")


class Nowhere:
    """Provides an empty checkout."""

    def checkout(self, _clone_url):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        return None


class StoppedMeanwhile:
    """An agent that is stopped while it works, and is then answered or refused anyway."""

    def __init__(self, task: CodingTask, error: Exception | None = None) -> None:
        self.task, self.error, self.tokens = task, error, []

    def work(self, _assignment, _checkout, access) -> str:
        self.tokens.append(access.token)
        assert stopping.stop(self.task.pk, "stopped by U1")
        if self.error is not None:
            raise self.error
        return "too late"


def tokens() -> int:
    return OAuthAccessToken.objects.count()


def test_a_task_is_ended_with_its_runs_and_their_tokens(run: TaskRun):
    mint_run_token(run.task.project, run.pk, ["slack_app"], TIME_LIMIT)
    TaskRun.objects.update(state=TaskRun.State.RUNNING)
    assert stopping.stop(run.task_id, "stopped by U1")
    run.refresh_from_db()
    assert (run.state, run.error) == ("stopped", "stopped by U1")
    assert run.finished_at is not None
    assert CodingTask.objects.get().state == "stopped"
    assert tokens() == 0


def test_stopping_twice_changes_nothing(run: TaskRun):
    assert not stopping.stop(run.task_id, "stopped by U1")  # it was queued: no model answers
    before = TaskRun.objects.values().get()
    assert not stopping.stop(run.task_id, "again")
    assert TaskRun.objects.values().get() == before


def test_what_was_answered_stays_answered(run: TaskRun):
    TaskRun.objects.update(state=TaskRun.State.SUCCEEDED, answer="done")
    stopping.stop(run.task_id, "stopped by U1")
    run.refresh_from_db()
    assert (run.state, run.answer) == ("succeeded", "done")


@pytest.mark.parametrize("error", [None, OutOfCredits()])
def test_an_attempt_that_was_stopped_keeps_no_answer_and_no_token(run: TaskRun, error):
    agent = StoppedMeanwhile(run.task, error)
    with pytest.raises(RunStopped):
        runs.perform(run, Nowhere(), agent)
    run.refresh_from_db()
    assert (run.state, run.answer) == ("stopped", "")
    assert tokens() == 0


def test_an_attempt_after_the_stop_does_not_begin(run: TaskRun):
    stopping.stop(run.task_id, "stopped by U1")
    agent = StoppedMeanwhile(run.task)
    with pytest.raises(RunStopped):
        runs.perform(run, Nowhere(), agent)
    assert agent.tokens == []
    assert tokens() == 0


def test_a_stopped_run_does_not_fail_afterwards(run: TaskRun):
    stopping.stop(run.task_id, "stopped by U1")
    runs.fail(run, "ModelFailed")
    run.refresh_from_db()
    assert run.state == "stopped"
