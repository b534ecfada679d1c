"""Runs that are given up after they were answered or stopped."""

import pytest

from coding_tasks import creation, runs
from coding_tasks.models import CodingTask, TaskRun
from tests.workflows.test_notices import mention as mention
from tests.workflows.test_notices import slack as slack
from tests.workflows.test_notices import workspace as workspace
from tests.workflows.world import World
from workflows.activities.coding import CodingActivities, FailedRun, ForwardedMessage
from workflows.mention_types import TIMED_OUT
from workflows.models import FollowUp, Mention, Notice
from workflows.stopping.work import stop_work


@pytest.fixture
def task(mention) -> CodingTask:
    project = mention.workspace.project
    repository = project.repositories.create(full_name="acme/shop", clone_url="file:///srv/shop")
    return CodingTask.objects.create(
        project=project,
        repository=repository,
        workspace=mention.workspace,
        channel_id="C1",
        thread_ts=mention.ts,
        owner_slack_user_id="U1",
        title="look",
        workflow_id="mention-1",
    )


@pytest.fixture
def run(task) -> TaskRun:
    return task.runs.create(message_ts=task.thread_ts, request="look")


@pytest.fixture
def activities() -> CodingActivities:
    return CodingActivities(None, None)


def test_a_stored_answer_is_posted_instead_of_a_failure(run, activities):
    run.state, run.answer = TaskRun.State.SUCCEEDED, "It is a shop."
    run.save()
    given_up = activities.fail_run(FailedRun(str(run.pk), TIMED_OUT))
    assert given_up.answered
    notice = Notice.objects.get()
    assert (str(notice.pk), notice.kind, notice.text) == (
        given_up.notice_id,
        Notice.Kind.ANSWER,
        "It is a shop.",
    )


def test_a_run_that_was_stopped_is_not_said_to_have_failed(run, activities):
    TaskRun.objects.update(state=TaskRun.State.STOPPED)
    assert activities.fail_run(FailedRun(str(run.pk), "ModelFailed")).notice_id is None
    assert not Notice.objects.exists()


def test_a_follow_up_of_a_task_that_is_being_stopped_makes_no_run(
    task, run, activities, monkeypatch
):
    follow_up = FollowUp.objects.create(
        workspace=task.workspace,
        channel_id="C1",
        ts=f"{task.thread_ts}9",
        thread_ts=task.thread_ts,
        user_id="U1",
        text="and the tests?",
        addressed=False,
        workflow_id=task.workflow_id,
    )
    monkeypatch.setattr(creation, "require_credits", lambda *_: stop_work(task, "stopped"))
    answer = activities.forward_follow_up(ForwardedMessage(str(task.pk), str(follow_up.pk)))
    assert answer.run_id == ""
    assert list(task.runs.all()) == [run]
    follow_up.refresh_from_db()
    assert follow_up.state == FollowUp.State.DROPPED


def test_an_answer_whose_last_attempt_is_lost_reaches_the_thread(
    shop: World, worker, hurried, monkeypatch
):
    hurried(attempts=1)
    keep = runs.store

    def kept_and_lost(*arguments):
        keep(*arguments)
        raise TimeoutError

    monkeypatch.setattr(runs, "store", kept_and_lost)
    about = shop.start()
    shop.wait_for_end(about, Mention.State.ANSWERED)
    assert len(shop.said(about.ts)) == 1
    assert not shop.notices(Notice.Kind.FAILURE)
