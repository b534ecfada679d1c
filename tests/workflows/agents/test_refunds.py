"""A run that fails through our fault costs nothing, and says so. Delivered work keeps its cost."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from billing.models import AttemptRefund, RunRefund, UsageEvent
from billing.verification.audit_faults import audit_trail_faults
from billing.verification.ledger_faults import ledger_faults
from billing.verification.projections import differences
from coding_tasks import runs
from coding_tasks.agent_worker.exchange import Attempt, Exchange, NotInExchange
from coding_tasks.failures import PublishingFailed, RepositoryUnreachable
from coding_tasks.models import CodingTask, RunChange, TaskRun
from coding_tasks.publishing import publication
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from coding_tasks.turns import agent_runs
from coding_tasks.turns.agent_runs import AgentRuns
from tests.billing.world import CREDIT, account_of, book, usage_event, used
from tests.conftest import wait_until
from tests.workflows.agent_worker import AgentWorkerThread, agent_worker_process
from tests.workflows.agents.calls import CALL
from tests.workflows.agents.test_agent_runs import answer_to
from tests.workflows.temporal_server import begun_turns, terminate, wait_for_close
from tests.workflows.world import World
from workflows import tasks, unfinished
from workflows.models import Mention
from workflows.stopping.work import stop_work
from workflows.task_runs import TURN_ATTEMPTS
from workflows.temporal import client

COST = 12 * CREDIT
GIVEN_BACK = "This used 12.00 credits, which were given back."


def event_of(run: TaskRun):
    """Return the event of a call that the run made."""
    return usage_event(run.task.project, properties={"task_run_id": str(run.pk)})


@pytest.fixture(autouse=True)
def paid(monkeypatch):
    """Book a call as soon as a run has its token."""
    begin = runs.begin

    def begin_and_pay(run, lifetime):
        token = begin(run, lifetime)
        if not UsageEvent.objects.filter(task_run_id=run.pk).exists():
            book(event_of(run))
        return token

    monkeypatch.setattr(runs, "begin", begin_and_pay)


def failing(error):
    def fail(*_arguments, **_options):
        raise error

    return fail


def assert_costs(world: World, micro: int) -> None:
    """Check what the team paid, now and after another call of the run arrives late."""
    run = TaskRun.objects.get()
    assert used(world.project.organization) == micro
    assert RunRefund.objects.filter(pk=run.pk).exists() == (micro == 0)
    book(event_of(run))
    assert used(world.project.organization) == (2 * micro if micro else 0)
    account = account_of(world.project.organization)
    assert [*differences(account), *ledger_faults(), *audit_trail_faults()] == []


def test_a_job_that_cannot_be_prepared_costs_nothing(coding: World, agents, monkeypatch):
    monkeypatch.setattr(Exchange, "put_job", failing(TypeError("broken")))
    assert answer_to(coding, "echo hello").endswith(GIVEN_BACK)
    assert_costs(coding, 0)


def test_a_missing_sandbox_costs_nothing(coding: World, worker):
    class NoSandbox(Bubblewrap):
        def why_missing(self) -> str | None:
            return "user namespaces are forbidden"

    with AgentWorkerThread(NoSandbox()):
        said = answer_to(coding, "echo hello")
    assert said.startswith("This server cannot run an agent safely")
    assert said.endswith(GIVEN_BACK)
    assert_costs(coding, 0)


def test_a_sandbox_that_breaks_costs_nothing(coding: World, worker):
    class Broken(Bubblewrap):
        def open(self, *_arguments, **_options):
            raise RuntimeError("the keeper died")

        def why_missing(self) -> str | None:
            return None

    with AgentWorkerThread(Broken()):
        assert answer_to(coding, "echo hello").endswith(GIVEN_BACK)
    assert_costs(coding, 0)


def test_a_missing_agent_costs_nothing(coding: World, agents):
    assert answer_to(coding, "add a flag, with codex").endswith(GIVEN_BACK)
    assert_costs(coding, 0)


def test_a_turn_that_no_worker_takes_costs_nothing(coding: World, worker, hurried):
    hurried(agent_worker_seconds=0.5)
    assert answer_to(coding, "echo hello").endswith(GIVEN_BACK)
    assert_costs(coding, 0)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("sandbox")
def test_an_agent_worker_that_dies_for_good_costs_nothing(coding: World, worker, tmp_path: Path):
    mention = coding.start("sleep 600")
    killed: set[str] = set()
    for _ in range(TURN_ATTEMPTS):
        process = agent_worker_process(tmp_path / "killed.log")
        wait_until(lambda: begun_turns(mention.workflow_id) - killed, what="the next attempt")
        killed.update(begun_turns(mention.workflow_id))
        process.kill()
        process.wait()
    coding.wait_for_end(mention, Mention.State.FAILED)
    [said] = coding.said(mention.ts)
    assert said.endswith(GIVEN_BACK)
    assert_costs(coding, 0)


def test_a_lost_result_costs_nothing(coding: World, agents, hurried, monkeypatch):
    hurried(attempts=1)
    monkeypatch.setattr(Attempt, "result", failing(NotInExchange("it is gone")))
    assert answer_to(coding, "echo hello").endswith(GIVEN_BACK)
    assert TaskRun.objects.get().error == "ResultLost"
    assert_costs(coding, 0)


def test_a_change_that_cannot_be_collected_costs_nothing(coding: World, agents, monkeypatch):
    monkeypatch.setattr(agent_runs, "commit_change", failing(TypeError("broken")))
    assert answer_to(coding, "echo a > b; echo Done").endswith(GIVEN_BACK)
    assert_costs(coding, 0)


def test_a_change_that_we_cannot_publish_costs_nothing(coding: World, agents, monkeypatch):
    monkeypatch.setattr(publication, "publish", failing(TypeError("broken")))
    said = answer_to(coding, "echo a > b; echo Done")
    assert said.startswith("Done\n\nChanged 1 file")
    assert "Not pushed, because something went wrong here. The change is kept." in said
    assert said.endswith(GIVEN_BACK)
    assert_costs(coding, 0)


def test_a_workflow_that_is_terminated_costs_nothing(coding: World, agents):
    mention = coding.start("sleep 600")
    wait_until(UsageEvent.objects.exists, what="the call of the run")
    terminate(mention.workflow_id)
    wait_for_close(mention.workflow_id)
    unfinished.clear_up(mention.workflow_id, "its workflow was terminated")
    tasks.deliver_pending_notices()
    [said] = coding.said(mention.ts)
    assert said.endswith(GIVEN_BACK)
    assert_costs(coding, 0)


def test_an_attempt_that_outlives_its_run_delivers_nothing(coding: World, agents, monkeypatch):
    store = runs.store

    def given_up_and_stored(run, answer):
        runs.fail(run, "timed out", ours=True)
        store(run, answer)

    monkeypatch.setattr(runs, "store", given_up_and_stored)
    assert answer_to(coding, "echo hello").endswith(GIVEN_BACK)
    run = TaskRun.objects.get()
    assert (run.state, run.answer) == (TaskRun.State.FAILED, "")
    assert_costs(coding, 0)


def test_a_turn_that_is_repeated_costs_what_the_last_attempt_used(
    coding: World, worker, sandbox: Bubblewrap
):
    breaks = [RuntimeError("the keeper died")]

    class BreaksOnce(Bubblewrap):
        def open(self, *arguments, **options):
            if breaks:
                raise breaks.pop()
            return super().open(*arguments, **options)

    with AgentWorkerThread(BreaksOnce()):
        assert answer_to(coding, "echo hello") == "hello"
    lost = AttemptRefund.objects.get()
    assert used(coding.project.organization) == 0
    assert_costs_once_more(coding, lost.until)


def assert_costs_once_more(world: World, until: datetime) -> None:
    """Check that a call of the lost attempt costs nothing, and one of the repeated turn does."""
    run = TaskRun.objects.get()
    properties = {"task_run_id": str(run.pk)}
    for at in (until - timedelta(microseconds=1), until):
        book(usage_event(run.task.project, at=at, properties=properties))
    assert used(world.project.organization) == COST
    account = account_of(world.project.organization)
    assert [*differences(account), *ledger_faults(), *audit_trail_faults()] == []


def test_a_paused_run_that_goes_on_keeps_its_cost(coding: World, agents, hurried):
    hurried(recheck_seconds=3600)
    coding.gateway.refuse_next("slack_app")
    coding.limit_after_next_gate()
    mention = coding.start(f"{CALL} && echo Done")
    coding.wait_until_said(mention.ts, 1)
    wait_until(lambda: TaskRun.objects.get().state == TaskRun.State.PAUSED, what="the pause")
    coding.top_up()
    tasks.wake_paused_runs()
    coding.wait_until_said(mention.ts, 2)
    assert not AttemptRefund.objects.exists()
    assert used(coding.project.organization) >= COST


def test_an_answer_costs_what_it_used(coding: World, agents):
    assert answer_to(coding, "echo hello") == "hello"
    assert_costs(coding, COST)


def test_a_published_change_costs_what_it_used(coding: World, agents):
    assert answer_to(coding, "echo a > b; echo Done").endswith("which is pushed.")
    assert_costs(coding, COST)


def test_a_change_that_the_code_host_does_not_take_costs_what_it_used(
    coding: World, agents, monkeypatch
):
    monkeypatch.setattr(
        publication, "publish", failing(PublishingFailed("it is locked", permanent=True))
    )
    said = answer_to(coding, "echo a > b; echo Done")
    assert said.endswith("Not pushed: it is locked.")
    assert RunChange.objects.get().patch
    assert_costs(coding, COST)


def test_a_repository_that_goes_away_before_the_push_costs_what_was_used(
    coding: World, agents, monkeypatch
):
    monkeypatch.setattr("workflows.activities.agents.LAST_PUBLISHING", 1)
    monkeypatch.setattr(publication, "publish", failing(RepositoryUnreachable("no answer")))
    said = answer_to(coding, "echo a > b; echo Done")
    assert said.startswith("Done")
    assert said.endswith("Not pushed: no answer.")
    assert RunChange.objects.get().patch
    assert_costs(coding, COST)


def test_a_repository_that_goes_away_during_the_turn_loses_no_answer(
    coding: World, agents, clone_urls, monkeypatch
):
    upstream = Path(clone_urls["acme/shop"].removeprefix("file://"))
    collect = AgentRuns.collect

    def collect_without(*arguments):
        upstream.rename(upstream.with_suffix(".gone"))
        try:
            return collect(*arguments)
        finally:
            upstream.with_suffix(".gone").rename(upstream)

    monkeypatch.setattr(AgentRuns, "collect", collect_without)
    said = answer_to(coding, "echo a > b; echo Done")
    assert said.startswith("Done\n\nChanged 1 file")
    assert RunChange.objects.get().patch
    assert_costs(coding, COST)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("echo a > b; chmod 0 .", "It could not be taken out of the sandbox."),
        (
            "printf '*.x %03000d\\n' 1 > .gitattributes",
            "The change contains a file that git refuses: .gitattributes has too long lines",
        ),
    ],
)
def test_an_agent_cannot_make_its_change_fail_through_our_fault(
    coding: World, agents, code: str, why: str
):
    said = answer_to(coding, f"{code}; echo Done")
    assert said.startswith("Done")
    assert why in said
    assert_costs(coding, COST)


def test_an_agent_that_gives_up_costs_what_it_used(coding: World, agents):
    assert answer_to(coding, "true").endswith("ended without an answer and changed nothing.")
    assert_costs(coding, COST)


def test_a_repository_that_refuses_us_costs_what_was_used(coding: World, agents):
    coding.project.repositories.update(clone_url="file:///nowhere/at/all")
    assert answer_to(coding, "true").endswith("check its address and my access to it.")
    assert TaskRun.objects.get().error == "RepositoryRefused"
    assert_costs(coding, COST)


def test_a_stopped_run_costs_what_it_used(coding: World, agents):
    mention = coding.start("sleep 600")
    wait_until(UsageEvent.objects.exists, what="the call of the run")
    stop_work(CodingTask.objects.get(), "stopped")
    client.cancel_all([mention.workflow_id])
    wait_for_close(mention.workflow_id)
    assert_costs(coding, COST)
