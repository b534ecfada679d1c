"""Mentions and tasks of terminated workflows end, and their threads are told."""

import threading

import pytest

from coding_tasks import runs
from coding_tasks.models import CodingTask, TaskRun
from tests.conftest import wait_until
from tests.workflows.fake_gateway import AGENT
from tests.workflows.temporal_server import reset_to_start, terminate, wait_for_close
from tests.workflows.world import World
from workflows import notices, tasks, unfinished
from workflows.models import FollowUp, Mention, Notice
from workflows.temporal import client

pytestmark = pytest.mark.usefixtures("worker")


def sweep(mention: Mention) -> None:
    """Sweep until the terminated workflow is listed: Temporal lists with a delay."""

    def is_cleared_up() -> bool:
        tasks.clear_up_terminated_workflows()
        mention.refresh_from_db()
        active = CodingTask.objects.filter(state=CodingTask.State.ACTIVE)
        return mention.state != Mention.State.STARTED and not active.exists()

    wait_until(is_cleared_up, what="the clearing up")
    tasks.deliver_pending_notices()


def test_a_workflow_terminated_at_work_ends_with_one_message(shop: World):
    shop.gateway.hold_next()
    mention = shop.start()
    wait_until(lambda: shop.gateway.requests(AGENT), what="the agent asking the model")
    terminate(mention.workflow_id)

    sweep(mention)
    sweep(mention)

    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "its workflow was terminated")
    [said] = shop.said(mention.ts)
    assert "something went wrong" in said
    assert TaskRun.objects.get().state == TaskRun.State.FAILED
    assert shop.handle("once more", thread_ts=mention.ts).state == Mention.State.ANSWERED


def test_a_stored_answer_is_posted_when_its_workflow_is_gone(shop: World, monkeypatch):
    kept = threading.Event()
    keep = runs.store

    def keep_and_hang(*arguments):
        keep(*arguments)
        kept.set()
        gone.wait(60)
        raise TimeoutError

    gone = threading.Event()
    monkeypatch.setattr(runs, "store", keep_and_hang)
    mention = shop.start()
    wait_until(kept.is_set, what="the answer being kept")
    terminate(mention.workflow_id)
    sweep(mention)
    gone.set()
    assert mention.state == Mention.State.ANSWERED
    [said] = shop.said(mention.ts)
    assert "something went wrong" not in said


def test_a_stored_answer_to_a_reply_is_posted_when_its_workflow_is_gone(shop: World, monkeypatch):
    mention = shop.handle()
    shop.gateway.hold_next()
    shop.reply(mention, "and what does it sell?")
    wait_until(lambda: len(shop.gateway.requests(AGENT)) == 2, what="the agent asking the model")
    terminate(mention.workflow_id)
    TaskRun.objects.filter(state=TaskRun.State.RUNNING).update(
        state=TaskRun.State.SUCCEEDED, answer="Shoes."
    )
    sweep(mention)
    assert shop.said(mention.ts)[1:] == ["Shoes."]


def test_an_answer_is_not_forgotten_if_the_end_of_its_mention_is_interrupted(
    shop: World, monkeypatch
):
    mention = shop.handle()
    Mention.objects.update(state=Mention.State.STARTED)
    Notice.objects.all().delete()
    with monkeypatch.context() as patch:
        patch.setattr(notices, "claim_answer", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            unfinished.end(mention, mention.workflow_id, Mention.State.FAILED, "cancelled")
    mention.refresh_from_db()
    notice = unfinished.end(mention, mention.workflow_id, Mention.State.FAILED, "cancelled")
    assert notice.kind == Notice.Kind.ANSWER
    mention.refresh_from_db()
    assert mention.state == Mention.State.ANSWERED


def test_the_thread_is_told_if_a_workflow_with_an_open_picker_is_terminated(
    two_repositories: World,
):
    two_repositories.gateway.answer_next("none")
    mention = two_repositories.start("please help")
    two_repositories.wait_until_said(mention.ts, 1)
    terminate(mention.workflow_id)
    sweep(mention)
    assert "something went wrong" in two_repositories.said(mention.ts)[1]


def test_a_conversation_terminated_when_nobody_waits_for_it_ends_silently(shop: World):
    mention = shop.handle()
    terminate(mention.workflow_id)
    sweep(mention)
    assert mention.state == Mention.State.ANSWERED
    assert CodingTask.objects.get().state == CodingTask.State.FAILED
    assert len(shop.said(mention.ts)) == 1


def test_the_thread_is_told_if_a_terminated_workflow_left_a_message(shop: World):
    mention = shop.handle()
    shop.gateway.hold_next()
    follow_up = shop.reply(mention, "and what does it sell?")
    wait_until(lambda: len(shop.gateway.requests(AGENT)) == 2, what="the agent asking the model")
    waiting = shop.reply(mention, "and where?")
    terminate(mention.workflow_id)
    sweep(mention)
    assert "something went wrong" in shop.said(mention.ts)[1]
    shop.wait_for_follow_up(follow_up, FollowUp.State.HANDLED)
    shop.wait_for_follow_up(waiting, FollowUp.State.DROPPED)


def test_a_workflow_that_was_reset_runs_again_and_is_left_alone(shop: World):
    mention = shop.handle()
    reset_to_start(mention.workflow_id)
    wait_until(
        lambda: mention.workflow_id in client.terminated_workflows(mention.received_at),
        what="the first run being listed",
    )
    tasks.clear_up_terminated_workflows()
    assert CodingTask.objects.get().state == CodingTask.State.ACTIVE
    terminate(mention.workflow_id)
    wait_for_close(mention.workflow_id)


@pytest.mark.usefixtures("shop")
def test_without_temporal_nothing_is_cleared_up(settings, monkeypatch):
    monkeypatch.setattr(client, "_connection", None)
    settings.TEMPORAL_ADDRESS = "127.0.0.1:1"
    tasks.clear_up_terminated_workflows()
