"""An order to stop ends a run. Afterwards nothing is posted and no credits are used."""

from functools import partial

import pytest
from temporalio.client import WorkflowExecutionStatus

from coding_tasks import creation, runs
from coding_tasks.models import CodingTask, TaskRun
from projects.models import OAuthAccessToken
from tests.conftest import wait_until
from tests.workflows.fake_gateway import AGENT, CLASSIFIER
from tests.workflows.temporal_server import terminate, wait_for_close
from tests.workflows.threads import at_once
from tests.workflows.world import World
from workflows import closing, denials, tasks
from workflows.activities import thread
from workflows.intake import follow_ups, mentions, replies
from workflows.mention_types import HANDED_BACK
from workflows.models import FollowUp, Mention, Notice, ThreadReply
from workflows.slack import access
from workflows.temporal import client

pytestmark = pytest.mark.usefixtures("worker")


def order(world: World, mention: Mention) -> Mention:
    """Have the author of a mention order a stop in its thread, as the webhook does."""
    post = world.slack.post("Stop!", user=mention.user_id, thread_ts=mention.thread_ts)
    kept = replies.keep(
        ThreadReply(
            workspace=world.workspace,
            channel_id="C1",
            ts=post["ts"],
            thread_ts=mention.thread_ts,
            user_id=mention.user_id,
            text=post["text"],
        )
    )
    became = replies.decide(kept)
    assert became is not None
    mentions.admit(became)
    world.send_all()
    return became


def test_a_run_at_work_is_ended_and_its_answer_is_not_posted(shop: World):
    shop.gateway.hold_next()
    mention = shop.start()
    wait_until(lambda: shop.gateway.requests(AGENT), what="the agent's call")
    order(shop, mention)
    assert wait_for_close(mention.workflow_id) is WorkflowExecutionStatus.CANCELED
    shop.gateway.release()
    run = TaskRun.objects.get()
    assert (run.state, run.answer) == (TaskRun.State.STOPPED, "")
    assert CodingTask.objects.get().state == CodingTask.State.STOPPED
    assert not OAuthAccessToken.objects.filter(task_run_id=run.pk).exists()
    shop.send_all()
    [said] = shop.said(mention.ts)
    assert said.startswith("Stopped, as <@U1> asked.")
    mention.refresh_from_db()
    assert mention.state == Mention.State.STOPPED


@pytest.mark.case("U6")
@pytest.mark.parametrize("first", ["answer", "stop"])
def test_the_thread_says_which_came_first_the_answer_or_the_stop(shop: World, monkeypatch, first):
    shop.gateway.answer_next("It is a shop.")
    store = runs.store

    def store_beside_a_stop(run, *given, **options):
        if first == "stop":
            order(shop, Mention.objects.get(ts=run.message_ts))
        store(run, *given, **options)
        if first == "answer":
            order(shop, Mention.objects.get(ts=run.message_ts))

    monkeypatch.setattr(runs, "store", store_beside_a_stop)
    mention = shop.start()
    wait_for_close(mention.workflow_id)
    shop.send_all()
    run = TaskRun.objects.get()
    said = shop.said(mention.ts)
    if first == "stop":
        assert (run.state, run.answer) == (TaskRun.State.STOPPED, "")
        assert [text[:8] for text in said] == ["Stopped,"]
    else:
        assert (run.state, run.answer) == (TaskRun.State.SUCCEEDED, "It is a shop.")
        assert said.count("It is a shop.") == 1
        assert len(said) == 2
    mention.refresh_from_db()
    assert mention.state == Mention.State.STOPPED
    assert not OAuthAccessToken.objects.exists()


@pytest.mark.case("U6")
def test_an_answer_and_a_stop_at_once_never_contradict_each_other(shop: World):
    for _ in range(5):
        shop.gateway.hold_next()
        asked = len(shop.gateway.requests(AGENT))
        mention = shop.start()
        wait_until(lambda: len(shop.gateway.requests(AGENT)) > asked, what="the call")  # noqa: B023
        at_once(shop.gateway.release, partial(order, shop, mention))
        wait_for_close(mention.workflow_id)
        shop.send_all()
        run = TaskRun.objects.get(message_ts=mention.ts)
        said = shop.said(mention.ts)
        assert run.state in (TaskRun.State.STOPPED, TaskRun.State.SUCCEEDED)
        assert said.count(run.answer) == (run.state == TaskRun.State.SUCCEEDED)
        assert len(said) == (2 if run.answer else 1)
        assert not OAuthAccessToken.objects.filter(task_run_id=run.pk).exists()


def test_a_mention_that_joined_the_task_before_a_late_order_begins_anew(shop: World):
    shop.gateway.hold_next()
    first = shop.start()
    wait_until(lambda: shop.gateway.requests(AGENT), what="the agent's call")
    late = shop.mention("stop", thread_ts=first.ts)
    second = shop.start("what does it sell?", thread_ts=first.ts)
    shop.wait_for_end(second, Mention.State.FORWARDED)
    wait_for_close(second.workflow_id)
    mentions.admit(late)
    shop.send_all()
    shop.gateway.release()
    shop.gateway.answer_next("Shoes.")
    tasks.start_pending_mentions()
    shop.wait_for_end(second, Mention.State.ANSWERED)
    assert "Shoes." in shop.said(first.ts)


def test_a_late_order_just_after_a_mention_joined_the_task_loses_no_mention(
    shop: World, monkeypatch
):
    shop.gateway.hold_next()
    first = shop.start()
    wait_until(lambda: shop.gateway.requests(AGENT), what="the agent's call")
    late = shop.mention("stop", thread_ts=first.ts)
    close = thread.close_joined

    def close_between(*given):
        mentions.admit(late)
        closed = close(*given)
        tasks.start_pending_mentions()  # too early, because the mention's workflow still runs
        return closed

    monkeypatch.setattr(thread, "close_joined", close_between)
    second = shop.start("what does it sell?", thread_ts=first.ts)
    wait_for_close(second.workflow_id)
    shop.send_all()
    shop.gateway.release()
    shop.gateway.answer_next("Shoes.")
    tasks.start_pending_mentions()
    shop.wait_for_end(second, Mention.State.ANSWERED)
    assert "Shoes." in shop.said(first.ts)


def test_replies_to_a_mention_that_is_handed_back_are_signalled_again(shop: World):
    mention = shop.mention()
    reply = shop.posted_reply(mention, "and what does it sell?")
    reply.workflow_id, reply.state = "its own", FollowUp.State.SIGNALLED
    reply.save()
    Mention.objects.update(
        state=Mention.State.STARTED, outcome=HANDED_BACK, workflow_id=reply.workflow_id
    )
    assert not closing.close_joined(mention.pk, "follow-up of another")
    reply.refresh_from_db()
    mention.refresh_from_db()
    assert (reply.state, mention.state) == (FollowUp.State.RECEIVED, Mention.State.RECEIVED)


def test_a_mention_that_joins_a_second_task_is_a_message_for_that_task(shop: World, monkeypatch):
    shop.gateway.hold_next()
    first = shop.start()
    wait_until(lambda: shop.gateway.requests(AGENT), what="the agent's call")
    second = shop.start("what does it sell?", thread_ts=first.ts)
    shop.wait_for_end(second, Mention.State.FORWARDED)
    wait_for_close(second.workflow_id)
    terminate(first.workflow_id)
    follow_ups.signal(FollowUp.objects.get())
    shop.gateway.release()
    create, others = creation.create_task, []

    def create_after_another(request, *given, **options):
        if request.message_ts == second.ts and not others:
            others.append(shop.start("and where?", thread_ts=first.ts))
            shop.wait_for_end(others[0], Mention.State.ANSWERED)
        return create(request, *given, **options)

    monkeypatch.setattr(creation, "create_task", create_after_another)
    mentions.admit(second)
    shop.wait_for_end(second, Mention.State.FORWARDED)
    joined = FollowUp.objects.get()
    assert joined.workflow_id == others[0].workflow_id
    shop.wait_for_follow_up(joined, FollowUp.State.HANDLED)


def test_a_stopped_run_whose_workflow_was_not_cancelled_ends_by_itself(shop: World, monkeypatch):
    monkeypatch.setattr(client, "cancel_all", lambda _workflow_ids: None)
    shop.gateway.hold_next()
    mention = shop.start()
    wait_until(lambda: shop.gateway.requests(AGENT), what="the agent's call")
    order(shop, mention)
    shop.gateway.release()
    assert wait_for_close(mention.workflow_id) is WorkflowExecutionStatus.COMPLETED
    shop.send_all()
    assert len(shop.said(mention.ts)) == 1
    assert TaskRun.objects.get().state == TaskRun.State.STOPPED
    assert len(shop.gateway.requests(AGENT)) == 1


def test_a_paused_run_ends_and_no_top_up_wakes_it(shop: World):
    shop.gateway.refuse_next("slack_app")
    mention = shop.start()
    wait_until(
        lambda: TaskRun.objects.filter(state=TaskRun.State.PAUSED).exists(), what="the pause"
    )
    shop.wait_until_said(mention.ts, 1)
    order(shop, mention)
    wait_for_close(mention.workflow_id)
    shop.top_up()
    tasks.wake_paused_runs()
    assert TaskRun.objects.get().state == TaskRun.State.STOPPED
    assert [each.split(",")[0] for each in shop.said(mention.ts)][-1] == "Stopped"


@pytest.mark.parametrize("of_the", ["mention", "follow-up"])
def test_a_run_stopped_at_the_moment_of_its_pause_is_not_said_to_have_paused(
    shop: World, monkeypatch, of_the
):
    """The run pauses, the thread is told that it was stopped, and then the denial is due."""
    claim = denials.claim_after_gateway_refusal
    mention = shop.handle() if of_the == "follow-up" else None

    def stopped_meanwhile(about, *arguments, **fields):
        order(shop, mention or Mention.objects.get())
        return claim(about, *arguments, **fields)

    monkeypatch.setattr(denials, "claim_after_gateway_refusal", stopped_meanwhile)
    shop.gateway.refuse_next("slack_app")
    if mention is None:
        mention = shop.start()
    else:
        shop.reply(mention, "and the tests?")
    wait_for_close(mention.workflow_id)
    wait_until(Notice.objects.filter(kind=Notice.Kind.DENIAL).exists, what="the denial")
    shop.send_all()
    assert TaskRun.objects.first().state == TaskRun.State.STOPPED
    assert shop.said(mention.ts)[-1].startswith("Stopped")
    assert Notice.objects.get(kind=Notice.Kind.DENIAL).state == Notice.State.GIVEN_UP


def test_a_paused_run_whose_workflow_was_not_told_ends_when_it_looks_for_credits(
    shop: World, monkeypatch, hurried
):
    hurried(recheck_seconds=1)
    monkeypatch.setattr(client, "cancel_all", lambda _workflow_ids: None)
    shop.gateway.refuse_next("slack_app")
    shop.limit_after_next_gate()
    mention = shop.start()
    shop.wait_until_said(mention.ts, 1)
    order(shop, mention)
    assert wait_for_close(mention.workflow_id) is WorkflowExecutionStatus.COMPLETED
    assert shop.gateway.requests(AGENT) == []


def test_stopping_closes_an_open_picker(two_repositories: World):
    world = two_repositories
    world.gateway.answer_next("none")
    mention = world.start("what is this?")
    world.wait_until_said(mention.ts, 1)
    order(world, mention)
    wait_for_close(mention.workflow_id)
    assert not CodingTask.objects.exists()
    assert len(world.said(mention.ts)) == 2
    mention.refresh_from_db()
    assert mention.state == Mention.State.STOPPED


def test_a_picker_whose_workflow_was_not_told_closes_without_a_word(
    two_repositories: World, monkeypatch, hurried
):
    world = two_repositories
    monkeypatch.setattr(client, "cancel_all", lambda _workflow_ids: None)
    hurried(picker_seconds=5)
    world.gateway.answer_next("none")
    mention = world.start("what is this?")
    world.wait_until_said(mention.ts, 1)
    order(world, mention)
    wait_for_close(mention.workflow_id)
    world.send_all()
    assert [each.split(",")[0] for each in world.said(mention.ts)][1:] == ["Stopped"]


def test_after_a_stop_no_model_is_asked_which_repository_is_meant(
    two_repositories: World, monkeypatch
):
    stop = access.check

    def stopped_meanwhile(*arguments):
        Mention.objects.update(state=Mention.State.STOPPED)
        return stop(*arguments)

    monkeypatch.setattr(access, "check", stopped_meanwhile)
    mention = two_repositories.start("what is this?")
    wait_for_close(mention.workflow_id)
    assert two_repositories.gateway.requests(CLASSIFIER) == []
    assert two_repositories.said(mention.ts) == []


def test_a_mention_that_was_stopped_before_its_workflow_began_makes_no_task(shop: World):
    mention = shop.mention()
    Mention.objects.update(state=Mention.State.STOPPED)
    client.start_mention(mention)
    wait_for_close(mention.workflow_id)
    assert not CodingTask.objects.exists()
    assert shop.said(mention.ts) == []
    assert Mention.objects.get().state == Mention.State.STOPPED


def test_no_task_is_created_for_a_mention_that_was_stopped_meanwhile(shop: World, monkeypatch):
    create = creation.create_task

    def create_after_stop(*given, **options):
        Mention.objects.update(state=Mention.State.STOPPED)
        return create(*given, **options)

    monkeypatch.setattr(creation, "create_task", create_after_stop)
    mention = shop.start()
    wait_for_close(mention.workflow_id)
    assert not CodingTask.objects.exists()
    assert shop.gateway.requests(AGENT) == []
    assert shop.said(mention.ts) == []


def test_a_mention_that_is_stopped_while_it_joins_a_task_is_no_message_for_it(
    shop: World, monkeypatch
):
    first = shop.handle()
    second = shop.mention("and?", thread_ts=first.ts)

    def stopped_meanwhile(*_arguments, **_options):
        Mention.objects.filter(pk=second.pk).update(state=Mention.State.STOPPED)
        raise creation.ThreadTaken

    monkeypatch.setattr("workflows.activities.coding.creation.create_task", stopped_meanwhile)
    client.start_mention(second)
    wait_for_close(second.workflow_id)
    assert not FollowUp.objects.exists()
    assert len(shop.said(first.ts)) == 1


def test_a_denied_request_is_done_when_it_is_taken_up(shop: World):
    shop.limit()
    denied = shop.handle("what is this?")
    shop.top_up()
    again = shop.mention("please?", thread_ts=denied.thread_ts)
    mentions.admit(again)
    shop.wait_for_end(again, Mention.State.ANSWERED)
    [request] = shop.gateway.requests(AGENT)
    assert request.body["messages"][-1]["content"] == "what is this?\n\nplease?"
    assert CodingTask.objects.get().title == "what is this?"
