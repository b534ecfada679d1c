"""After Temporal lost its store, mentions without a task begin anew, and the others end."""

from datetime import timedelta

import pytest
from django.utils import timezone
from temporalio.client import WorkflowExecutionStatus

from coding_tasks.models import CodingTask, TaskRun
from tests.workflows.temporal_server import wait_for_close
from tests.workflows.world import World
from workflows import notices, tasks
from workflows.mention_types import workflow_id
from workflows.models import FollowUp, Mention
from workflows.recovery.ages import BEGUN_ANEW_WITHIN, LOOKED_FOR_AFTER
from workflows.recovery.lost_mentions import check_workflow
from workflows.requests import message_of
from workflows.temporal import client
from workflows.unfinished import in_words

NEW = LOOKED_FOR_AFTER + timedelta(seconds=1)
OLD = BEGUN_ANEW_WITHIN + timedelta(seconds=1)


def lost(world: World, age: timedelta, **fields: str) -> Mention:
    """Return a mention of this age, which was started but is unknown to Temporal."""
    mention = world.mention(**fields)
    mention.state = Mention.State.STARTED
    mention.workflow_id = workflow_id("T1", "C1", mention.ts)
    mention.received_at = timezone.now() - age
    mention.save()
    return mention


def sweep(mention: Mention) -> None:
    for _ in range(2):
        tasks.look_for_workflows()
        tasks.deliver_pending_notices()
    mention.refresh_from_db()


def work_on(shop: World, mention: Mention) -> CodingTask:
    task = CodingTask.objects.create(
        project=shop.project,
        repository=shop.project.repositories.get(),
        workspace=shop.workspace,
        channel_id="C1",
        thread_ts=mention.ts,
        owner_slack_user_id="U1",
        title="Look",
        workflow_id=mention.workflow_id,
    )
    TaskRun.objects.create(task=task, message_ts=mention.ts, request="Look")
    return task


def test_a_young_mention_without_a_task_begins_anew_with_what_was_said_since(shop: World, worker):
    shop.gateway.script("It is a shop.", "Shoes.")
    mention = lost(shop, NEW)
    reply = FollowUp.objects.create(
        workspace=shop.workspace,
        channel_id="C1",
        ts=shop.slack.post("and what does it sell?", thread_ts=mention.ts)["ts"],
        thread_ts=mention.ts,
        user_id="U1",
        text="and what does it sell?",
        addressed=False,
        workflow_id=mention.workflow_id,
        state=FollowUp.State.SIGNALLED,
    )
    sweep(mention)
    shop.wait_for_end(mention, Mention.State.ANSWERED)
    FollowUp.objects.update(received_at=timezone.now() - timedelta(minutes=1))
    tasks.deliver_pending_follow_ups()
    assert shop.wait_until_said(mention.ts, 2) == ["It is a shop.", "Shoes."]
    shop.wait_for_follow_up(reply, FollowUp.State.HANDLED)


def test_a_message_reaches_the_new_workflow_though_the_process_that_began_it_died(
    shop: World, worker, monkeypatch
):
    shop.gateway.script("It is a shop.", "Shoes.")
    mention = lost(shop, NEW)
    reply = shop.posted_reply(mention, "and what does it sell?")
    reply.workflow_id, reply.state = mention.workflow_id, FollowUp.State.SIGNALLED
    reply.save()
    start = client.start_mention

    def start_and_die(mention: Mention) -> None:
        start(mention)
        raise SystemExit

    monkeypatch.setattr(client, "start_mention", start_and_die)
    with pytest.raises(SystemExit):
        tasks.look_for_workflows()
    FollowUp.objects.update(received_at=timezone.now() - timedelta(minutes=1))
    shop.wait_for_end(mention, Mention.State.ANSWERED)
    tasks.deliver_pending_follow_ups()
    assert shop.wait_until_said(mention.ts, 2) == ["It is a shop.", "Shoes."]


def test_a_mention_that_ended_since_it_was_listed_does_not_begin_anew(shop: World):
    mention = lost(shop, NEW)
    listed = Mention.objects.select_related("workspace").get(pk=mention.pk)
    Mention.objects.update(state=Mention.State.FAILED)
    check_workflow(listed)
    assert client.status_of(mention.workflow_id) is None


def test_an_old_mention_ends_with_one_message(shop: World):
    mention = lost(shop, OLD)
    sweep(mention)
    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "its workflow was lost")
    [said] = shop.said(mention.ts)
    assert "something went wrong" in said
    assert client.status_of(mention.workflow_id) is None


def test_a_mention_that_its_workflow_left_open_is_not_said_to_have_been_terminated(
    shop: World, worker, hurried
):
    hurried(idle_seconds=0.1)
    mention = shop.handle()
    wait_for_close(mention.workflow_id)
    Mention.objects.update(
        state=Mention.State.STARTED, received_at=timezone.now() - OLD, finished_at=None
    )
    said = shop.said(mention.ts)
    sweep(mention)
    assert (mention.state, mention.outcome) == (Mention.State.ANSWERED, "its workflow had ended")
    assert shop.said(mention.ts) == said


def test_a_workflow_that_ended_meanwhile_is_not_lost(shop: World, worker, hurried, caplog):
    hurried(idle_seconds=0.1)
    mention = shop.start()
    listed = Mention.objects.get(pk=mention.pk)
    shop.wait_for_end(mention, Mention.State.ANSWERED)
    wait_for_close(mention.workflow_id)
    assert listed.state == Mention.State.STARTED
    check_workflow(listed)
    assert "a workflow is gone" not in caplog.text
    assert shop.notices("failure") == []


def test_every_status_of_an_ended_workflow_has_its_own_words():
    ends = [*WorkflowExecutionStatus, None]
    said = [in_words(status) for status in ends if status is not WorkflowExecutionStatus.RUNNING]
    assert said.count("its workflow was terminated") == 1
    assert said.count("its workflow was lost") == 1


def test_a_mention_whose_task_had_begun_ends_with_one_message_and_frees_its_thread(shop: World):
    mention = lost(shop, NEW)
    task = work_on(shop, mention)
    sweep(mention)
    task.refresh_from_db()
    assert (mention.state, task.state) == (Mention.State.FAILED, CodingTask.State.FAILED)
    assert len(shop.said(mention.ts)) == 1
    assert client.status_of(mention.workflow_id) is None


def test_a_run_answers_the_mention_that_began_its_task_or_else_the_message_handed_to_it(
    shop: World,
):
    """A mention may be handed to a task that turns out to be gone, and then begin its own."""
    mention = lost(shop, NEW)
    work_on(shop, mention)
    follow_up = FollowUp.objects.create(
        workspace=shop.workspace,
        channel_id="C1",
        ts=mention.ts,
        thread_ts=mention.ts,
        user_id="U1",
        text=mention.text,
        addressed=True,
        workflow_id="gone",
    )
    run = TaskRun.objects.select_related("task").get()
    assert message_of(run) == mention
    run.task = CodingTask(workspace=shop.workspace, channel_id="C1", workflow_id="gone")
    assert message_of(run) == follow_up


def test_a_conversation_that_nobody_waits_for_ends_in_silence(shop: World):
    mention = lost(shop, NEW)
    task = work_on(shop, mention)
    TaskRun.objects.update(state=TaskRun.State.SUCCEEDED, answer="A shop.")
    Mention.objects.update(state=Mention.State.ANSWERED)
    notices.claim_answer(TaskRun.objects.get(), mention)
    sweep(mention)
    task.refresh_from_db()
    assert task.state == CodingTask.State.FAILED
    assert shop.said(mention.ts) == ["A shop."]


def test_recent_and_running_workflows_are_left_alone(shop: World):
    young = lost(shop, timedelta(seconds=1))
    running = shop.start()
    Mention.objects.filter(pk=running.pk).update(received_at=timezone.now() - OLD)
    sweep(running)
    young.refresh_from_db()
    assert {young.state, running.state} == {Mention.State.STARTED}
    assert client.status_of(young.workflow_id) is None


def test_a_missing_namespace_loses_no_workflow(shop: World, settings, monkeypatch):
    mention = lost(shop, OLD)
    monkeypatch.setattr(client, "_connection", None)
    settings.TEMPORAL_NAMESPACE = "not-there"
    sweep(mention)
    assert mention.state == Mention.State.STARTED
    with pytest.raises(client.TemporalUnavailable):
        client.signal_credits_gained(mention.workflow_id)
