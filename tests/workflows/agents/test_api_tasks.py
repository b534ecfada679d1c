"""Tasks over the API whose agent changes code: the branch, pauses, and agreeing to a push."""

import pytest
from django.test import Client

from coding_tasks.models import CodingTask, RunChange
from projects import credential_cache
from projects.authentication import credentials
from projects.models import User
from tests.workflows.agents.calls import CALL, nothing_is_left
from tests.workflows.api.conftest import Caller
from tests.workflows.fake_gateway import API_AGENT
from tests.workflows.world import World
from workflows import tasks
from workflows.api_task_types import ApiTaskInput

SECRET = "ghp_" + "a" * 36


@pytest.fixture
def caller(coding: World, client: Client) -> Caller:
    credential_cache.forget_all()
    ada = User.objects.create_user("ada", "ada@example.com", "a long password")
    coding.project.organization.members.add(ada)
    _, plain = credentials.issue_personal_api_key(
        coding.project.organization, "key", ["task:write"], [coding.project], ada
    )
    return Caller(client, coding.project.pk, plain)


def test_a_task_ends_with_a_commit_on_a_branch(coding: World, caller: Caller, agents):
    made = caller.started(f"{CALL} && echo 'print(1)' > version.py && echo I wrote version.py")
    done = caller.wait_for(made, "done", "failed")
    [run] = done["runs"]
    assert (run["state"], run["answer"]) == ("succeeded", "I wrote version.py")
    change = run["change"]
    assert (change["files"], change["added"], change["pushed"]) == (1, 1, True)
    assert (done["branch"], done["agent"]) == (change["branch"], "shell")
    assert RunChange.objects.get().commit == change["commit"]
    assert b"Co-authored-by: ada <ada@example.com>" in bytes(RunChange.objects.get().description)
    assert len(coding.gateway.requests(API_AGENT)) == 1
    assert coding.slack.calls() == []
    assert nothing_is_left()


def test_a_follow_up_adds_to_the_branch(coding: World, caller: Caller, agents):
    made = caller.started("echo one > notes && echo Wrote one")
    caller.wait_for(made, "done")
    caller.message(made, "cat notes && echo two >> notes")
    first, second = caller.wait_for(made, "done")["runs"]
    assert second["answer"] == "one"
    assert second["change"]["branch"] == first["change"]["branch"]
    diff = caller.get(f"{made['id']}/diff/")
    assert diff.headers["Content-Type"] == "text/x-diff"
    assert diff.content.count(b"+++ b/notes") == 2


def test_a_missing_agent_is_reported_as_missing(coding: World, caller: Caller, agents):
    failed = caller.wait_for(caller.started("echo hello", agent="codex"), "failed")
    assert failed["runs"][0]["message"].startswith("The agent codex is not installed")
    assert nothing_is_left()


def test_a_refused_run_pauses_with_its_work_and_goes_on(
    coding: World, caller: Caller, agents, monkeypatch
):
    def patient(task_id: str) -> ApiTaskInput:
        return ApiTaskInput(task_id, recheck_seconds=3600)

    monkeypatch.setattr("workflows.temporal.client.ApiTaskInput", patient)
    coding.gateway.refuse_next("posthog_code")
    coding.gateway.before_refusing(lambda: coding.limit("posthog_code_credits"))
    made = caller.started(f"cat work; echo part >> work; {CALL} && echo Done")
    caller.wait_for_run(made, "paused")
    coding.top_up("posthog_code_credits")
    tasks.wake_paused_runs()
    [run] = caller.wait_for(made, "done")["runs"]
    assert run["answer"] == "part\nDone"
    assert run["change"]["added"] == 2


def test_a_change_with_a_secret_waits_for_its_owner(coding: World, caller: Caller, agents):
    made = caller.started(f"echo {SECRET} > token && echo Wrote it")
    [run] = caller.wait_for(made, "done")["runs"]
    assert run["change"]["pushed"] is False
    [question] = run["change"]["questions"]
    assert question.endswith("seems to contain a token of GitHub.")
    assert SECRET not in str(run["transcript"])
    stranger = User.objects.create_user("eve", "eve@example.com", "a long password")
    coding.project.organization.members.add(stranger)
    _, plain = credentials.issue_personal_api_key(
        coding.project.organization, "key", ["task:write"], [coding.project], stranger
    )
    path = f"{made['id']}/publish/"
    assert Caller(caller.client, coding.project.pk, plain).post(path, {}).status_code == 403
    tasks.publish_all_confirmed()
    assert caller.read(made)["runs"][0]["change"]["pushed"] is False
    caller.message(made, "echo more > notes && echo Wrote notes")
    _, second = caller.wait_for(made, "done")["runs"]
    assert (second["change"]["pushed"], second["change"]["questions"]) == (False, [])
    assert caller.post(path, {}).json() == {"publishing": True}
    tasks.publish_all_confirmed()
    for run in caller.read(made)["runs"]:
        assert (run["change"]["pushed"], run["change"]["questions"]) == (True, [])
    assert caller.post(path, {}).json() == {"publishing": False}
    assert coding.slack.calls() == []


def test_a_stop_ends_the_turn(coding: World, caller: Caller, agents):
    coding.gateway.hold_next()
    made = caller.started(f"echo a > b; {CALL} && echo Done")
    caller.wait_for_run(made, "running")
    assert caller.stop(made)["state"] == "stopped"
    coding.gateway.release()
    ended = caller.wait_for(made, "stopped")
    assert ended["runs"][0]["change"] is None
    assert CodingTask.objects.get().finished_at is not None
