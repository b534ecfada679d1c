"""A mention whose agent changes code: in a sandbox, on a branch, paid by a token of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from coding_tasks.agent_worker.exchange import Exchange, NotInExchange
from coding_tasks.agent_worker.job import AgentJob
from coding_tasks.models import (
    CodingTask,
    ProjectAgent,
    Repository,
    RunChange,
    RunEvent,
    TaskRun,
)
from coding_tasks.publishing import publication
from coding_tasks.publishing.publication import task_diff
from coding_tasks.repositories.shared_checkouts import SharedCheckouts
from coding_tasks.repositories.trees import remove_tree
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from coding_tasks.sandbox.errors import WorkspaceFailed
from coding_tasks.turns import agent_runs
from coding_tasks.turns.agent_runs import AgentRuns
from projects.models import OAuthAccessToken
from tests.conftest import wait_until
from tests.git_repositories import commit, make_repository, run_git
from tests.workflows.agent_worker import AgentWorkerThread, agent_worker_process
from tests.workflows.agents.calls import CALL, has_begun, nothing_is_left
from tests.workflows.fake_gateway import AGENT
from tests.workflows.temporal_server import history, wait_for_close
from tests.workflows.world import World
from workflows import tasks
from workflows.intake import stop_orders
from workflows.models import CostConfirmation, Mention, Notice, RunQuote
from workflows.quotes import answering
from workflows.stopping.work import stop_work
from workflows.temporal import client


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
    said = coding.wait_until_said(mention.ts, 4)  # two answers, each followed by its change
    assert said[2].startswith("one\n\nChanged 1 file (+1 −0)")
    first, second = RunChange.objects.order_by("pk")
    assert (second.parent, second.branch) == (first.commit, first.branch)
    assert task_diff(CodingTask.objects.get()) == first.patch + second.patch


def test_the_agent_gets_the_thread_before_the_request(coding: World, worker, settings):
    root = coding.slack.post("an alert: the shop is down", user="U2")["ts"]
    coding.start("fix it", thread_ts=root)

    def prompt() -> str:
        try:
            exchange = Exchange(Path(settings.AGENT_EXCHANGE_DIRECTORY))
            return exchange.job(str(TaskRun.objects.get().pk)).prompt
        except (NotInExchange, TaskRun.DoesNotExist):
            return ""

    wait_until(prompt, what="the job")
    assert "U2 wrote:\nan alert: the shop is down" in prompt()
    assert prompt().endswith("\n\nNow do this:\nfix it")


def test_an_agent_that_changes_nothing_only_answers(coding: World, agents):
    assert answer_to(coding, "ls") == "README.md"
    assert not RunChange.objects.exists()


def test_an_agent_that_neither_answers_nor_changes_anything_is_reported(coding: World, agents):
    assert answer_to(coding, "true") == (
        "The agent shell ended without an answer and changed nothing."
    )


def test_a_change_without_an_answer_is_kept_and_reported(coding: World, agents):
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


@pytest.mark.case("W10")
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


def test_a_run_that_used_what_was_accepted_ends_with_what_it_did(coding: World, agents):
    CostConfirmation.objects.create(project=coding.project, ask_above_micro=0)
    coding.gateway.refuse_next("slack_app", cause="accepted_cap_reached", times=9)
    mention = coding.start(f"echo part > work; {CALL} 2> /dev/null; exit 1")
    coding.wait_until_said(mention.ts, 1)
    assert not coding.gateway.requests(AGENT)
    answering.answer(
        coding.workspace, TaskRun.objects.get().pk, "U1", RunQuote.State.ACCEPTED, timezone.now()
    )
    tasks.settle_quotes()
    coding.wait_for_end(mention, Mention.State.ANSWERED)
    said = coding.wait_until_said(mention.ts, 2)[1]
    assert "(it used the credits that were accepted for it). Its change so far is kept." in said
    run = TaskRun.objects.get()
    assert (run.state, run.used_all_accepted) == (TaskRun.State.SUCCEEDED, True)


def test_a_call_is_made_with_the_token_of_the_run(coding: World, agents):
    assert answer_to(coding, f"{CALL} && echo paid") == "paid"
    [request] = coding.gateway.requests(AGENT)
    assert request.body["model"] == "claude-sonnet-4-6"


def test_a_stopped_run_ends_its_processes_and_keeps_nothing(coding: World, agents, monkeypatch):
    mention = coding.start("echo begun; sleep 600; echo a > b")
    wait_until(has_begun, what="the agent's first words")
    stop_work(CodingTask.objects.get(), "stopped")
    client.cancel_all([mention.workflow_id])
    wait_for_close(mention.workflow_id)
    assert not RunChange.objects.exists()
    assert TaskRun.objects.get().state == TaskRun.State.STOPPED
    assert not OAuthAccessToken.objects.exists()
    monkeypatch.setattr(agent_runs, "_KEPT_AFTER", timedelta(0))
    AgentRuns.from_settings().tidy()
    assert nothing_is_left()


@pytest.mark.parametrize("at", ["_restore", "push"])
def test_a_stop_while_publishing_prevents_the_push_or_says_that_it_had_begun(
    coding: World, agents, clone_urls, monkeypatch, at: str
):
    upstream = Path(clone_urls["acme/shop"].removeprefix("file://"))
    step = getattr(publication, at)

    def stop_first(*arguments):
        order = coding.mention("stop", thread_ts=Mention.objects.get().thread_ts)
        stop_orders.obey(order)
        return step(*arguments)

    monkeypatch.setattr(publication, at, stop_first)
    mention = coding.start("echo a > b; echo Done")
    wait_for_close(mention.workflow_id)
    wait_until(lambda: Notice.objects.filter(kind="answer").exists(), what="the answer")
    tasks.deliver_pending_notices()
    stopped, answer = coding.wait_until_said(mention.ts, 2)
    change = RunChange.objects.get()
    assert stopped.startswith("Stopped, as <@U1> asked.")
    assert ("was already being pushed" in stopped) == (at == "push")
    assert answer.endswith("which is pushed." if at == "push" else "The work was stopped first.")
    assert (change.branch in run_git(upstream, "branch", "--list")) == (at == "push")
    assert (change.pushed_at is not None) == (at == "push")


@pytest.mark.case("U6")
def test_a_stop_between_the_answer_and_its_publishing_loses_no_answer(
    coding: World, agents, monkeypatch
):
    collect = AgentRuns.collect

    def collect_then_stop(*arguments, **options):
        collected = collect(*arguments, **options)
        order = coding.mention("stop", thread_ts=Mention.objects.first().thread_ts)
        stop_orders.obey(order)
        return collected

    monkeypatch.setattr(AgentRuns, "collect", collect_then_stop)
    mention = coding.start("echo a > b; echo Done")
    wait_for_close(mention.workflow_id)
    stopped, answer = coding.wait_until_said(mention.ts, 2)
    assert stopped.startswith("Stopped, as <@U1> asked.")
    assert answer.startswith("Done")
    assert answer.endswith("The work was stopped first.")
    assert RunChange.objects.get().pushed_at is None


def test_a_run_waits_for_a_place_of_its_project_and_says_so(coding: World, agents, settings):
    settings.AGENT_TURNS_PER_PROJECT = 1
    first = coding.start("echo begun; sleep 600")
    wait_until(has_begun, what="the agent's first words")
    second = coding.start("echo hello")
    wait_until(lambda: Notice.objects.filter(kind="hint").exists(), what="the hint")
    tasks.deliver_pending_notices()
    [waits] = coding.wait_until_said(second.ts, 1)
    assert waits == ("I work on 1 task of this project at once, so this waits for a free place.")
    stop_work(CodingTask.objects.get(workflow_id=first.workflow_id), "stopped")
    client.cancel_all([first.workflow_id])
    coding.wait_for_end(second, Mention.State.ANSWERED)
    assert coding.said(second.ts) == [waits, "hello"]


def test_a_run_that_is_stopped_while_it_is_prepared_leaves_nothing(
    coding: World, agents, monkeypatch
):
    provide, prepare = SharedCheckouts.provide, AgentRuns.prepare
    prepared = threading.Event()

    def stop_and_provide(*arguments, **options):
        task = CodingTask.objects.get()
        stop_work(task, "stopped")
        client.cancel_all([task.workflow_id])
        return provide(*arguments, **options)

    def prepare_and_tell(*arguments):
        try:
            return prepare(*arguments)
        finally:
            prepared.set()

    monkeypatch.setattr(SharedCheckouts, "provide", stop_and_provide)
    monkeypatch.setattr(AgentRuns, "prepare", prepare_and_tell)
    mention = coding.start("echo hello")
    wait_for_close(mention.workflow_id)
    assert prepared.wait(60)
    assert coding.said(mention.ts) == []
    assert nothing_is_left()


def test_a_killed_agent_worker_is_replaced_and_the_turn_is_done_once(
    coding: World, worker, sandbox: Bubblewrap, tmp_path: Path
):
    killed = agent_worker_process(tmp_path / "killed.log")
    mention = coding.start("echo begun; sleep 3; echo a > b; echo done")
    wait_until(has_begun, what="the agent's first words")
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


def test_a_finished_run_leaves_nothing_in_the_exchange(coding: World, agents):
    coding.handle("echo hello")
    assert nothing_is_left()


def test_a_run_waits_for_a_gateway_that_cannot_decide(coding: World, agents):
    coding.gateway.decline_next("slack_app", "redis_unavailable")
    said = answer_to(coding, f"cat work; echo part >> work; {CALL} && echo Done")
    assert said.startswith("part\nDone\n\nChanged 1 file (+2 −0)")
    assert nothing_is_left()


def test_unfinished_work_goes_on_at_its_own_commit(coding: World, agents, tmp_path: Path):
    address = make_repository(tmp_path / "shop", {"README.md": "one\n"})
    Repository.objects.update(clone_url=address)
    coding.gateway.refuse_next("slack_app")
    coding.limit_after_next_gate()
    mention = coding.start(f"echo part >> README.md; {CALL} && echo Done")
    coding.wait_until_said(mention.ts, 1)
    wait_until(lambda: TaskRun.objects.get().state == TaskRun.State.PAUSED, what="the pause")
    (tmp_path / "shop" / "README.md").write_text("two\n")
    commit(tmp_path / "shop")
    coding.top_up()
    tasks.wake_paused_runs()
    answers = coding.wait_until_said(mention.ts, 2)
    assert answers[1].startswith("Done\n\nChanged 1 file (+2 −0)")


@pytest.mark.parametrize("megabytes", [11, 30])
def test_an_answer_is_kept_although_its_change_is_too_large(coding: World, agents, megabytes: int):
    make = f"head -c {megabytes}000000 /dev/urandom > big"
    said = answer_to(coding, f"{make}; {CALL}; echo Done")
    assert said == "Done\n\nThe change is not kept. The change is larger than 10 MB."
    assert len(coding.gateway.requests(AGENT)) == 1
    assert nothing_is_left()


def test_files_that_cannot_be_read_are_reported_as_missing(coding: World, agents):
    said = answer_to(coding, "echo x > closed; chmod 0 closed; echo y > open; echo Done")
    assert said.startswith("Done\n\nFiles that cannot be read are not in the change.\n\nChanged 1")


def test_a_change_that_must_not_be_committed_takes_no_answer_away(coding: World, agents):
    said = answer_to(coding, "printf '[submodule]' > .gitmodules; echo Done")
    assert said.startswith("Done\n\nThe change is not kept. The change touches a submodule")


def test_another_token_than_the_runs_does_not_leave(coding: World, agents):
    said = answer_to(coding, f"export ANTHROPIC_AUTH_TOKEN=phx_other; {CALL} || echo refused")
    assert said == "refused"
    assert coding.gateway.requests(AGENT) == []


def test_words_of_a_sandbox_that_fails_are_not_in_the_history(coding: World, worker):
    class Broken(Bubblewrap):
        def open(self, *_arguments, **_options):
            raise WorkspaceFailed("words of a file")

    with AgentWorkerThread(Broken()):
        mention = coding.handle("echo hello")
    assert "words of a file" not in str(history(mention.workflow_id))
    assert mention.outcome == "WorkspaceFailed"


def test_two_tasks_of_one_repository_at_once_share_nothing(coding: World, agents):
    mentions = [
        coding.start(f"ls; while [ ! -e /tmp/x ]; do sleep 1; touch /tmp/x; done; echo > file{n}")
        for n in range(2)
    ]
    for mention in mentions:
        coding.wait_for_end(mention, Mention.State.ANSWERED)
        assert coding.said(mention.ts)[0].startswith("README.md\n\nChanged 1 file")
    first, second = RunChange.objects.all()
    assert first.branch != second.branch
    assert first.parent == second.parent


def test_a_job_that_was_tampered_with_is_not_read(coding: World, settings):
    exchange = Exchange(Path(settings.AGENT_EXCHANGE_DIRECTORY))
    run_id = "7c0b4f0e-0000-4000-8000-000000000000"
    job = AgentJob(*("",) * 9, trace_id="")
    exchange.put_job(run_id, job)
    path = exchange.root / "runs" / run_id / "job.json"
    for forged in ({"commit": "--index-output=/x"}, {"commit": 1}, {"unknown": 1}):
        path.write_text(json.dumps(asdict(job) | forged))
        with pytest.raises(NotInExchange, match="malformed"):
            exchange.job(run_id)
    path.write_text("[" * 100_000)
    with pytest.raises(NotInExchange, match="malformed"):
        exchange.job(run_id)


def test_a_folder_nested_too_deeply_does_not_keep_a_credential(coding: World, settings):
    exchange = Exchange(Path(settings.AGENT_EXCHANGE_DIRECTORY))
    run_id = "7c0b4f0e-0000-4000-8000-000000000000"
    exchange.put_job(run_id, AgentJob(*("",) * 9, trace_id=""))
    subprocess.run(
        [sys.executable, "-c", "import os\nfor _ in range(5000): os.mkdir('d'); os.chdir('d')"],
        cwd=exchange.root / "runs" / run_id,
        check=True,
    )
    try:
        exchange.remove(run_id)
        with pytest.raises(NotInExchange):
            exchange.job(run_id)
    finally:
        remove_tree(exchange.root)  # pytest's own clean-up could not


def test_the_newest_attempt_is_found_beside_a_link_to_nowhere(coding: World, settings):
    exchange = Exchange(Path(settings.AGENT_EXCHANGE_DIRECTORY))
    run_id = "7c0b4f0e-0000-4000-8000-000000000000"
    exchange.attempt(run_id, "attempt-1").begin()
    (exchange.root / "runs" / run_id / "attempt-2").symlink_to("nowhere")
    assert exchange.latest(run_id).event_lines() == []


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
