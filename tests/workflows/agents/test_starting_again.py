"""Failed and stopped work of agents that starts again or goes on, with a real worker."""

import time
from pathlib import Path

import pytest

from billing.allowances.limits import set_limit
from billing.organizations import create_organization, create_project
from coding_tasks.models import CodingTask, Repository, RunChange, TaskRun
from projects.models import SlackWorkspace
from quota.resources import AI_CREDITS
from tests.conftest import wait_until
from tests.git_repositories import run_git
from tests.workflows.agents.calls import CALL
from tests.workflows.fake_gateway import AGENT
from tests.workflows.temporal_server import wait_for_close
from tests.workflows.world import World
from workflows import participants, tasks
from workflows.intake import repeating, stop_orders
from workflows.messages import run_buttons
from workflows.models import Mention, Notice
from workflows.results import undoing
from workflows.slack import access
from workflows.temporal import client

pytestmark = pytest.mark.slow


def click(world: World, action: str, *, user: str = "U1") -> Mention:
    """Click a button of the newest message that has it, as the webhook takes it."""
    shown = Notice.objects.filter(kind__in=["failure", "stop"]).order_by("-created_at")
    elements = (
        each for notice in shown for block in notice.blocks for each in block.get("elements", [])
    )
    value = next(each["value"] for each in elements if each.get("action_id") == action)
    goes_on = action == run_buttons.GO_ON
    repeating.take_click(
        [world.workspace], repeating.Click(value, user, f"{time.time():.6f}", goes_on)
    )
    world.send_all()
    return Mention.objects.get(is_click=True, user_id=user)


def stop(world: World, mention: Mention) -> None:
    """Have the author stop the work at once, and wait until its workflow has ended."""
    order = world.mention("stop", thread_ts=mention.thread_ts)
    stop_orders.obey(order)
    world.send_all()
    wait_for_close(CodingTask.objects.get(thread_ts=mention.thread_ts).workflow_id)


def stopped_in_second_turn(world: World) -> Mention:
    """Return a mention whose first turn wrote `one`, and whose second was stopped."""
    mention = world.handle("echo one > one && echo Wrote one")
    world.wait_until_said(mention.ts, 1)
    world.gateway.hold_next()
    world.reply(mention, f"{CALL}; echo two > two && echo Wrote two")
    wait_until(lambda: world.gateway.requests(AGENT), what="the agent's call")
    stop(world, mention)
    world.gateway.release()
    return mention


def test_a_click_goes_on_with_the_same_task_branch_and_request(coding: World, agents, clone_urls):
    mention = stopped_in_second_turn(coding)
    task = CodingTask.objects.get()
    assert task.state == CodingTask.State.STOPPED
    again = click(coding, run_buttons.GO_ON)
    coding.wait_for_end(again, Mention.State.ANSWERED)
    task.refresh_from_db()
    assert (task.state, task.workflow_id) == (CodingTask.State.ACTIVE, again.workflow_id)
    run = TaskRun.objects.get(message_ts=again.ts)
    assert run.request.startswith("The work on the request below was stopped")
    assert "echo two > two" in run.request
    first, second = RunChange.objects.order_by("pk")
    assert (second.run, second.branch, second.parent) == (run, first.branch, first.commit)
    upstream = Path(clone_urls["acme/shop"].removeprefix("file://"))
    assert run_git(upstream, "rev-parse", first.branch) == second.commit
    assert any(said.startswith("Wrote two") for said in coding.said(mention.ts))


@pytest.fixture
def stopped_turn_of_another(coding: World, agents) -> CodingTask:
    """A task of U1, whose second turn U2 asked for as a participant, and stopped."""
    mention = coding.handle("echo one > one && echo Wrote one")
    coding.wait_until_said(mention.ts, 1)
    task = CodingTask.objects.select_related("workspace").get()
    participants.let_join(task, "U2", "U1", decider="<@U1>")
    coding.gateway.hold_next()
    mention.user_id = "U2"
    coding.reply(mention, f"{CALL}; echo two > two && echo Wrote two")
    wait_until(lambda: coding.gateway.requests(AGENT), what="the agent's call")
    stop_orders.obey(coding.mention("stop", thread_ts=mention.ts, user="U2"))
    coding.send_all()
    wait_for_close(task.workflow_id)
    coding.gateway.release()
    return task


def test_what_goes_on_counts_as_used_by_the_participant_who_asked_for_it(
    coding: World, stopped_turn_of_another
):
    again = click(coding, run_buttons.GO_ON, user="U2")
    coding.wait_for_end(again, Mention.State.ANSWERED)
    run = TaskRun.objects.get(message_ts=again.ts)
    assert (run.task, run.asked_by) == (stopped_turn_of_another, "U2")
    assert run.distinct_id == "slack:T1:U2"


def test_a_removed_participant_goes_on_in_a_task_of_their_own(
    coding: World, stopped_turn_of_another
):
    participants.remove(stopped_turn_of_another, "U2", "U1", decider="<@U1>")
    again = click(coding, run_buttons.GO_ON, user="U2")
    coding.wait_for_end(again, Mention.State.ANSWERED)
    run = TaskRun.objects.select_related("task").get(message_ts=again.ts)
    assert run.task != stopped_turn_of_another
    assert run.task.owner_slack_user_id == "U2"
    assert "echo two > two" in run.request


def test_a_reply_after_going_on_is_the_next_message_of_the_task(coding: World, agents):
    mention = stopped_in_second_turn(coding)
    again = click(coding, run_buttons.GO_ON)
    coding.wait_for_end(again, Mention.State.ANSWERED)
    follow_up = coding.reply(mention, "cat one two")
    coding.wait_for_follow_up(follow_up, "handled")
    run = TaskRun.objects.get(message_ts=follow_up.ts)
    wait_until(
        lambda: TaskRun.objects.get(pk=run.pk).state == TaskRun.State.SUCCEEDED, what="the turn"
    )
    assert TaskRun.objects.get(pk=run.pk).answer.startswith("one\ntwo")


def test_starting_again_after_a_stop_of_the_first_turn_begins_another_task(coding: World, agents):
    coding.gateway.hold_next()
    mention = coding.start(f"{CALL}; echo one > one && echo Wrote one")
    wait_until(lambda: coding.gateway.requests(AGENT), what="the agent's call")
    stop(coding, mention)
    coding.gateway.release()
    again = click(coding, run_buttons.START_AGAIN)
    coding.wait_for_end(again, Mention.State.ANSWERED)
    assert [task.state for task in CodingTask.objects.order_by("created_at")] == [
        CodingTask.State.STOPPED,
        CodingTask.State.ACTIVE,
    ]
    assert TaskRun.objects.get(message_ts=again.ts).request == mention.text.partition(" ")[2]


def test_going_on_in_a_workspace_of_another_organization_leaves_the_task_of_the_first(
    coding: World, agents, clone_urls
):
    stopped_in_second_turn(coding)
    organization = create_organization("Other")
    set_limit(organization, AI_CREDITS, None)
    project = create_project(organization, "Other")
    Repository.objects.create(
        project=project, full_name="acme/shop", clone_url=clone_urls["acme/shop"]
    )
    SlackWorkspace.objects.update(project=project)
    coding.workspace.refresh_from_db()
    again = click(coding, run_buttons.GO_ON)
    wait_until(lambda: TaskRun.objects.filter(message_ts=again.ts).exists(), what="a run")
    run = TaskRun.objects.get(message_ts=again.ts)
    assert run.task.project == project


def test_going_on_is_refused_to_somebody_who_lost_access(coding: World, agents, monkeypatch):
    stopped_in_second_turn(coding)
    monkeypatch.setattr(access, "check", lambda *_given: access.Access.OUTSIDER)
    again = click(coding, run_buttons.GO_ON)
    coding.wait_for_end(again, Mention.State.REFUSED)
    assert again.outcome.startswith("no access")
    assert CodingTask.objects.get().state == CodingTask.State.STOPPED


def test_going_on_waits_for_credits_as_a_mention_does(coding: World, agents):
    stopped_in_second_turn(coding)
    set_limit(coding.project.organization, AI_CREDITS, 0)
    again = click(coding, run_buttons.GO_ON)
    again.refresh_from_db()
    assert again.state == Mention.State.REFUSED
    assert CodingTask.objects.get().state == CodingTask.State.STOPPED
    assert Notice.objects.filter(kind="denial", mention=again).exists()


def test_the_stopped_workflow_changes_nothing_of_work_that_went_on(coding: World, agents):
    """The stopped workflow may hear of the stop only when the work goes on already."""
    coding.gateway.hold_next()
    mention = coding.start(f"{CALL}; echo one > one && echo Wrote one")
    wait_until(lambda: coding.gateway.requests(AGENT), what="the agent's call")
    cancel_all, client.cancel_all = client.cancel_all, lambda _ids: None
    try:
        stop_orders.obey(coding.mention("stop", thread_ts=mention.thread_ts))
    finally:
        client.cancel_all = cancel_all
    coding.send_all()
    again = click(coding, run_buttons.GO_ON)
    coding.gateway.release()
    mention.refresh_from_db()
    wait_for_close(mention.workflow_id)
    coding.wait_for_end(again, Mention.State.ANSWERED)
    task = CodingTask.objects.get()
    assert (task.state, task.workflow_id) == (CodingTask.State.ACTIVE, again.workflow_id)
    assert not Notice.objects.filter(kind="failure").exists()


def test_undo_removes_a_pushed_change_and_the_next_turn_starts_without_it(
    coding: World, agents, clone_urls
):
    upstream = Path(clone_urls["acme/shop"].removeprefix("file://"))
    mention = coding.handle("echo one > one && echo Wrote one")
    coding.wait_until_said(mention.ts, 1)
    run = TaskRun.objects.get()
    branch = run.change.branch
    assert run_git(upstream, "for-each-ref", f"refs/heads/{branch}") != ""
    undoing.take_click([coding.workspace], run.pk, "U1")
    tasks.undo_all()
    coding.send_all()
    assert run_git(upstream, "for-each-ref", f"refs/heads/{branch}") == ""
    assert coding.said(mention.ts)[-1].endswith("had no other change and is deleted.")
    follow_up = coding.reply(mention, "ls; echo two > two")
    coding.wait_for_follow_up(follow_up, "handled")
    second = TaskRun.objects.get(message_ts=follow_up.ts)
    wait_until(lambda: TaskRun.objects.get(pk=second.pk).answer, what="the second answer")
    wait_until(lambda: RunChange.objects.get(run=second).pushed_at, what="the push")
    assert run_git(upstream, "ls-tree", "--name-only", branch).split() == ["README.md", "two"]
