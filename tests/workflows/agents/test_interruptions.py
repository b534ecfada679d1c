"""Processes that die or hang, and stores that go away, in the middle of a run of an agent."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from coding_tasks.models import RunChange, TaskRun
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from projects.models import OAuthAccessToken
from tests.conftest import wait_until
from tests.git_repositories import run_git
from tests.workflows.agent_worker import SHELL, AgentWorkerThread, agent_worker_process
from tests.workflows.agents.calls import CALL, has_begun, nothing_is_left
from tests.workflows.fake_gateway import AGENT
from tests.workflows.outage import Outage
from tests.workflows.temporal_server import terminate, wait_for_close
from tests.workflows.worker_process import worker_process
from tests.workflows.world import World
from workflows import unfinished
from workflows.models import Mention

pytestmark = pytest.mark.slow

DEATHS = [
    "before prepare_run",
    "after coding_tasks.runs.mint_run_token",
    "after prepare_run",
    "before collect_run",
    "after coding_tasks.publishing.publication.record_change",
    "after coding_tasks.runs.store",
    "after collect_run",
    "after coding_tasks.publishing.publication.push",
    "before workflows.notices.claim_answer",
    "after publish_run",
    "after workflows.notices._send",
]


@pytest.fixture
def killed(coding: World, sandbox: Bubblewrap, tmp_path: Path):
    """A process of an agent worker, which is killed at the end at the latest."""
    process = agent_worker_process(tmp_path / "killed.log")
    yield process
    process.kill()
    process.wait()


@pytest.mark.case("W6")
@pytest.mark.timeout(300)
def test_a_worker_killed_at_any_point_publishes_once_and_says_so_once(
    coding: World, sandbox: Bubblewrap, environment, settings, tmp_path, clone_urls
):
    log = tmp_path / "worker.log"
    environment |= {
        "AGENT_EXCHANGE_DIRECTORY": settings.AGENT_EXCHANGE_DIRECTORY,
        "REPOSITORIES_DIRECTORY": settings.REPOSITORIES_DIRECTORY,
        "AGENT_COMMANDS": json.dumps(SHELL),
    }
    mentions = []
    with (
        AgentWorkerThread(sandbox),
        worker_process(settings.TEMPORAL_TASK_QUEUE, environment, log, DEATHS) as process,
    ):
        for number, death in enumerate(DEATHS):
            mentions.append(coding.start(f"echo x > f{number}; {CALL}; echo Done {number}"))
            assert process.stdout.readline().strip() == death, log.read_text()
        for mention in mentions:
            coding.wait_for_end(mention, Mention.State.ANSWERED)
    for mention in mentions:
        [said] = coding.said(mention.ts)
        assert "which is pushed" in said
    changes = list(RunChange.objects.all())
    assert Counter(change.files for change in changes) == {1: len(DEATHS)}
    upstream = Path(clone_urls["acme/shop"].removeprefix("file://"))
    for change in changes:
        assert run_git(upstream, "rev-parse", change.branch) == change.commit
    assert len(coding.gateway.requests(AGENT)) == len(DEATHS)  # no turn is done twice
    assert nothing_is_left()


def test_a_turn_that_could_not_be_collected_at_once_is_not_done_again(
    coding: World, outage: Outage, agents
):
    coding.gateway.hold_next()
    mention = coding.start(f"{CALL} && echo a > b && echo Done")
    wait_until(lambda: coding.gateway.requests(AGENT), what="the agent's call")
    outage.begin()
    coding.gateway.release()
    outage.wait_until_noticed()
    outage.end()
    coding.wait_for_end(mention, Mention.State.ANSWERED)
    assert len(coding.gateway.requests(AGENT)) == 1
    [said] = coding.said(mention.ts)
    assert said.startswith("Done\n\nChanged 1 file")
    assert nothing_is_left()


def test_a_turn_that_could_never_be_collected_is_not_taken_for_the_next_one(
    coding: World, outage: Outage, agents, hurried
):
    hurried(outage_seconds=0)
    mention = coding.handle("echo Hello")
    coding.gateway.hold_next()
    coding.reply(mention, f"{CALL} && echo lost")
    wait_until(lambda: coding.gateway.requests(AGENT), what="the agent's call")
    outage.begin()
    coding.gateway.release()
    outage.wait_until_noticed(2)
    outage.end()
    coding.wait_until_said(mention.ts, 2)
    coding.reply(mention, "echo Again")
    assert coding.wait_until_said(mention.ts, 3)[2] == "Again"


def test_an_agent_worker_that_only_seemed_dead_can_spend_nothing_more(
    coding: World, worker, killed, sandbox: Bubblewrap
):
    mention = coding.start(f"{CALL}; echo begun; sleep 20; echo a > b; {CALL}; echo done")
    wait_until(has_begun, what="the agent's first words")
    [first] = coding.gateway.requests(AGENT)
    os.kill(killed.pid, signal.SIGSTOP)
    with AgentWorkerThread(sandbox):
        wait_until(lambda: len(coding.gateway.requests(AGENT)) == 2, what="the second attempt")
        os.kill(killed.pid, signal.SIGCONT)
        coding.wait_for_end(mention, Mention.State.ANSWERED)
    second, *_ = coding.gateway.requests(AGENT)[1:]
    assert first.headers["authorization"] != second.headers["authorization"]
    assert [change.files for change in RunChange.objects.all()] == [1]
    assert len(coding.said(mention.ts)) == 1
    assert nothing_is_left()


def test_an_agent_worker_that_is_stopped_hands_its_turn_over(
    coding: World, worker, sandbox: Bubblewrap
):
    with AgentWorkerThread(sandbox):
        mention = coding.start("echo begun; sleep 8; echo a > b; echo done")
        wait_until(has_begun, what="the agent's first words")
    with AgentWorkerThread(sandbox):
        coding.wait_for_end(mention, Mention.State.ANSWERED)
    assert [change.files for change in RunChange.objects.all()] == [1]
    assert nothing_is_left()


def test_a_terminated_workflow_leaves_no_token(coding: World, agents):
    mention = coding.start("echo begun; sleep 600")
    wait_until(has_begun, what="the agent's first words")
    assert OAuthAccessToken.objects.exists()
    terminate(mention.workflow_id)
    wait_for_close(mention.workflow_id)
    unfinished.clear_up(mention.workflow_id, "terminated")
    assert TaskRun.objects.get().state == TaskRun.State.FAILED
    assert not OAuthAccessToken.objects.exists()
