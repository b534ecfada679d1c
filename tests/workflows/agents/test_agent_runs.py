"""A mention whose agent changes code: in a sandbox, on a branch, paid by a token of its own."""

import json
import os
import signal
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from coding_tasks.agent_runs import AgentRuns
from coding_tasks.agent_worker.exchange import Exchange, NotInExchange
from coding_tasks.models import CodingTask, ProjectAgent, RunChange, RunEvent, TaskRun
from coding_tasks.publishing.publication import task_diff
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from coding_tasks.sandbox.command import PYTHON_INSIDE
from projects.models import OAuthAccessToken
from tests.conftest import wait_until
from tests.workflows.agent_worker import AgentWorkerThread, agent_worker_process
from tests.workflows.fake_gateway import AGENT
from tests.workflows.temporal import history, wait_for_close
from tests.workflows.world import World
from workflows import client, tasks
from workflows.models import Mention
from workflows.stopping.work import stop_work

CALL = f"""{PYTHON_INSIDE} -c '
import os, urllib.request
base, token = os.environ["ANTHROPIC_BASE_URL"], os.environ["ANTHROPIC_AUTH_TOKEN"]
body = b"{{\\"model\\": \\"claude-sonnet-4-6\\", \\"max_tokens\\": 9, \\"messages\\": []}}"
headers = {{"Authorization": "Bearer " + token, "Content-Type": "application/json"}}
urllib.request.urlopen(urllib.request.Request(base + "/v1/messages", body, headers))
'"""
"""Shell code that calls the model, and fails if the gateway refuses."""


def nothing_is_left() -> bool:
    """Return whether neither a token nor a file of the runs exists."""
    runs_folder = Path(django_settings.AGENT_EXCHANGE_DIRECTORY) / "runs"
    return not OAuthAccessToken.objects.exists() and list(runs_folder.iterdir()) == []


def answer_to(world: World, text: str) -> str:
    """Have a mention handled to its end; return the bot's one message."""
    mention = world.handle(text)
    [said] = world.said(mention.ts)
    return said


def test_a_mention_ends_with_a_commit_on_a_branch_and_an_answer(coding: World, agents):
    said = answer_to(coding, "echo 'print(1)' > version.py && echo I wrote version.py")
    change = RunChange.objects.get()
    assert said.startswith("I wrote version.py\n\nChanged 1 file (+1 −0) on the branch `tollgate/")
    assert f"`{change.branch}`" in said
    assert said.endswith("which is pushed.")
    assert b"+print(1)" in change.patch
    run = TaskRun.objects.get()
    assert run.state == TaskRun.State.SUCCEEDED
    assert not OAuthAccessToken.objects.filter(task_run_id=run.pk).exists()


def test_the_next_turn_goes_on_with_the_files_of_the_one_before(coding: World, agents):
    mention = coding.handle("echo one > notes && echo Wrote one")
    coding.reply(mention, "cat notes && echo two >> notes")
    answers = coding.wait_until_said(mention.ts, 2)
    assert answers[1].startswith("one\n\nChanged 1 file (+1 −0)")
    first, second = RunChange.objects.order_by("pk")
    assert (second.parent, second.branch) == (first.commit, first.branch)
    assert task_diff(CodingTask.objects.get()) == first.patch + second.patch


def test_an_agent_that_changes_nothing_only_answers(coding: World, agents):
    assert answer_to(coding, "ls") == "README.md"
    assert not RunChange.objects.exists()


def test_an_agent_that_neither_answers_nor_changes_anything_is_said_to(coding: World, agents):
    assert answer_to(coding, "true") == (
        "The agent shell ended without an answer and changed nothing."
    )


def test_a_change_without_a_word_is_kept_and_said(coding: World, agents):
    said = answer_to(coding, "echo a > b")
    assert said.startswith("The agent ended before it was done (it said nothing).")
    assert "Changed 1 file" in said


def test_an_agent_that_is_not_installed_is_not_replaced_by_another(coding: World, agents):
    said = answer_to(coding, "add a flag, with codex")
    assert said.startswith("The agent codex is not installed on this server.")
    assert TaskRun.objects.get().request == "add a flag"
    assert coding.gateway.requests(AGENT) == []
    assert nothing_is_left()


def test_without_a_sandbox_nothing_runs_and_the_thread_is_told(coding: World, worker):
    class NoSandbox(Bubblewrap):
        def why_missing(self) -> str | None:
            return "user namespaces are forbidden"

    with AgentWorkerThread(NoSandbox()):
        said = answer_to(coding, "echo hello")
    assert said.startswith("This server cannot run an agent safely, so I changed nothing.")
    assert nothing_is_left()


def test_without_an_agent_worker_the_thread_is_told(coding: World, worker, hurried):
    hurried(agent_worker_seconds=0.5)
    assert answer_to(coding, "echo hello").startswith("No agent worker took this work")
    assert nothing_is_left()


def test_a_project_with_the_reading_agent_needs_no_agent_worker(coding: World, worker):
    ProjectAgent.objects.update(agent="reader")
    assert "[demo model]" in answer_to(coding, "what is this?")
    assert not RunChange.objects.exists()


def test_a_refused_run_pauses_and_goes_on_where_it_stopped(coding: World, agents, hurried):
    hurried(recheck_seconds=3600)
    coding.gateway.refuse_next("slack_app")
    coding.limit_after_next_gate()
    mention = coding.start(f"cat work; echo part >> work; {CALL} && echo Done")
    [denial] = coding.wait_until_said(mention.ts, 1)
    wait_until(lambda: TaskRun.objects.get().state == TaskRun.State.PAUSED, what="the pause")
    assert "credits" in denial
    assert not RunChange.objects.exists()
    assert not OAuthAccessToken.objects.exists()
    coding.top_up()
    tasks.wake_paused_runs()
    answers = coding.wait_until_said(mention.ts, 2)
    assert answers[1].startswith("part\nDone\n\nChanged 1 file (+2 −0)")


@pytest.mark.parametrize("cause", ["run_cap_reached", "gateway_run_cap_reached"])
def test_a_run_at_its_cap_ends_with_what_it_did(coding: World, agents, cause: str):
    coding.gateway.refuse_next("slack_app", cause=cause, times=9)
    said = answer_to(coding, f"echo part > work; {CALL} 2> /dev/null; exit 1")
    assert "(it used the credits that one task may use). Its change so far is kept." in said
    assert "Changed 1 file" in said
    assert TaskRun.objects.get().state == TaskRun.State.SUCCEEDED


def test_a_call_is_made_with_the_token_of_the_run(coding: World, agents):
    assert answer_to(coding, f"{CALL} && echo paid") == "paid"
    [request] = coding.gateway.requests(AGENT)
    assert request.body["model"] == "claude-sonnet-4-6"


def test_a_stopped_run_ends_its_processes_and_keeps_nothing(coding: World, agents):
    mention = coding.start("echo begun; sleep 600; echo a > b")
    wait_until(_steps, what="the agent's first words")
    stop_work(CodingTask.objects.get(), "stopped")
    client.cancel_all([mention.workflow_id])
    wait_for_close(mention.workflow_id)
    assert not RunChange.objects.exists()
    assert TaskRun.objects.get().state == TaskRun.State.STOPPED
    assert not OAuthAccessToken.objects.exists()


def test_a_killed_agent_worker_is_replaced_and_the_turn_is_done_once(
    coding: World, worker, sandbox: Bubblewrap, tmp_path: Path
):
    killed = agent_worker_process(tmp_path / "killed.log")
    mention = coding.start("echo begun; sleep 3; echo a > b; echo done")
    wait_until(_steps, what="the agent's first words")
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    with AgentWorkerThread(sandbox):
        coding.wait_for_end(mention, Mention.State.ANSWERED)
    assert [change.files for change in RunChange.objects.all()] == [1]
    assert len(coding.said(mention.ts)) == 1


def test_temporals_history_holds_no_text_and_no_credential(coding: World, agents):
    mention = coding.handle("echo my-secret-answer; echo $ANTHROPIC_AUTH_TOKEN > token")
    told = str(history(mention.workflow_id))
    token = RunChange.objects.get().patch.split(b"\n+")[1].strip().decode()
    for secret in ("my-secret-answer", token, "ANTHROPIC_AUTH_TOKEN"):
        assert secret not in told


def test_the_transcript_is_kept_without_the_token(coding: World, agents):
    coding.handle("echo first; echo the token is $ANTHROPIC_AUTH_TOKEN")
    texts = [event["text"] for event in RunEvent.objects.values_list("event", flat=True)]
    assert texts[:2] == ["first", "the token is •••"]


def test_nothing_of_a_finished_run_stays_in_the_exchange(coding: World, agents):
    coding.handle("echo hello")
    assert nothing_is_left()


def test_a_run_waits_for_a_gateway_that_cannot_decide(coding: World, agents):
    coding.gateway.decline_next("slack_app", "redis_unavailable")
    said = answer_to(coding, f"cat work; echo part >> work; {CALL} && echo Done")
    assert said.startswith("part\nDone\n\nChanged 1 file (+2 −0)")
    assert nothing_is_left()


def test_a_result_that_is_a_link_is_not_read(coding: World, settings, tmp_path: Path):
    exchange = Exchange(Path(settings.AGENT_EXCHANGE_DIRECTORY))
    run_id = "7c0b4f0e-0000-4000-8000-000000000000"
    attempt = exchange.attempt(run_id, "attempt-1")
    attempt.begin()
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"ending": "answered", "answer": "secret"}))
    (attempt.folder / "result.json").symlink_to(secret)
    with pytest.raises(NotInExchange, match="cannot be opened"):
        attempt.result()


@pytest.mark.parametrize("name", ["..", "attempt-../../x", "attempt-", "job.json", ""])
def test_a_name_that_is_no_attempts_is_not_opened(coding: World, settings, name: str):
    exchange = Exchange(Path(settings.AGENT_EXCHANGE_DIRECTORY))
    with pytest.raises(NotInExchange):
        exchange.attempt("7c0b4f0e-0000-4000-8000-000000000000", name)


def _steps() -> bool:
    """Return whether the run's agent has said anything."""
    run = TaskRun.objects.first()
    attempt = run and AgentRuns.from_settings().exchange.latest(str(run.pk))
    return bool(attempt and attempt.event_lines())
