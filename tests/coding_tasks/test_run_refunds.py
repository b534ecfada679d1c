"""A run gets its cost back at most once, and only if the failure is ours."""

import pytest

from billing.models import RunRefund
from coding_tasks import api_tasks, runs, threads
from coding_tasks.failures import RunGivenUp
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.stopping import stop
from projects.models import OAuthAccessToken
from tests.billing.world import CREDIT, book, usage_event, used

pytestmark = pytest.mark.django_db
COST = 12 * CREDIT


@pytest.fixture
def task(repository, workspace) -> CodingTask:
    return CodingTask.objects.create(
        project=repository.project,
        repository=repository,
        workspace=workspace,
        channel_id="C1",
        thread_ts="100.1",
        owner_slack_user_id="U1",
        title="look",
        workflow_id="mention-1",
    )


@pytest.fixture
def run(task) -> TaskRun:
    return task.runs.create(message_ts=task.thread_ts, request="look")


@pytest.fixture(autouse=True)
def paid(task, run):
    """The run is at work and has made a call."""
    runs.begin(run, runs.TIME_LIMIT)
    book(usage_event(task.project, properties={"task_run_id": str(run.pk)}))


def cost(task) -> int:
    return used(task.project.organization)


@pytest.mark.parametrize(
    "end",
    [
        lambda task, run: runs.fail(run, "ResultLost", ours=True),
        lambda task, run: threads.abandon(task.workflow_id),
        lambda task, run: api_tasks.give_up(task.pk, "its workflow was lost", ours=True),
    ],
    ids=["failed", "abandoned", "given up"],
)
def test_failures_of_ours_cost_nothing(task, run, end):
    for _ in range(2):
        end(task, run)
    assert cost(task) == 0
    assert RunRefund.objects.count() == 1
    assert not OAuthAccessToken.objects.filter(task_run_id=run.pk).exists()


def test_failures_of_others_keep_their_cost(task, run):
    runs.fail(run, "AgentEnded")
    runs.fail(run, "ResultLost", ours=True)
    assert cost(task) == COST


def test_an_answer_or_a_stop_that_came_first_keeps_its_cost(task, run):
    runs.store(run, "fine")
    runs.fail(run, "timed out", ours=True)
    assert cost(task) == COST
    assert TaskRun.objects.get().state == TaskRun.State.SUCCEEDED


def test_a_run_that_a_person_stopped_keeps_its_cost(task, run):
    stop(task.pk, "stopped")
    runs.fail(run, "timed out", ours=True)
    assert cost(task) == COST


def test_a_run_that_was_given_up_does_not_begin_again(task, run):
    runs.fail(run, "timed out", ours=True)
    runs.store(run, "too late")
    assert TaskRun.objects.get().answer == ""
    with pytest.raises(RunGivenUp):
        runs.begin(run, runs.TIME_LIMIT)
    assert not OAuthAccessToken.objects.filter(task_run_id=run.pk).exists()
