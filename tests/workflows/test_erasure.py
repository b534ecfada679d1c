"""Erased words are no longer posted or sent to a model."""

import threading

import pytest
from django.core.management import call_command
from django.db import connection

from coding_tasks import creation, runs
from coding_tasks.models import CodingTask, TaskRun
from projects.models import OAuthAccessToken
from tests.conftest import wait_until
from tests.workflows.fake_gateway import AGENT, CLASSIFIER
from tests.workflows.temporal_server import wait_for_close
from tests.workflows.world import World
from workflows import closing, denials, notices, tasks
from workflows.intake import follow_ups, replies
from workflows.models import ERASED, FollowUp, Mention, Notice, ThreadReply
from workflows.slack import access
from workflows.temporal import client

pytestmark = pytest.mark.usefixtures("worker")


def erase(*_anything) -> None:
    call_command("erase_slack_user", "T1", "U1")


def sweep() -> None:
    tasks.start_pending_mentions()
    tasks.deliver_pending_follow_ups()
    tasks.wake_paused_runs()
    tasks.look_for_workflows()
    tasks.deliver_pending_notices()


def assert_nothing_is_left(world: World, thread_ts: str, said: int = 0, asked: int = 0) -> None:
    """Run everything that may still happen; check that no erased words are said, sent or kept."""
    for workflow_id in CodingTask.objects.values_list("workflow_id", flat=True):
        wait_for_close(workflow_id)
    sweep()
    assert len(world.said(thread_ts)) == said
    assert len(world.gateway.requests(AGENT)) == asked
    assert not any(ERASED in each for each in world.said(thread_ts))
    assert not any(ERASED in str(each.body) for each in world.gateway.requests(AGENT))
    rows = [*TaskRun.objects.values("request", "answer"), *CodingTask.objects.values("title")]
    texts = [each for row in rows for each in row.values()]
    assert set(texts) <= {ERASED, ""}


@pytest.mark.parametrize("is_told", [True, False])
def test_a_run_at_work_ends_without_an_answer(shop: World, monkeypatch, is_told):
    if not is_told:
        monkeypatch.setattr(client, "cancel_all", lambda _workflow_ids: None)
    shop.gateway.hold_next()
    mention = shop.start()
    wait_until(lambda: shop.gateway.requests(AGENT), what="the agent's call")
    erase()
    assert not OAuthAccessToken.objects.exists()
    shop.gateway.release()
    assert_nothing_is_left(shop, mention.ts, asked=1)
    assert TaskRun.objects.get().state == TaskRun.State.STOPPED


def test_a_paused_run_does_not_go_on(shop: World):
    shop.gateway.refuse_next("slack_app")
    mention = shop.start()
    wait_until(
        lambda: TaskRun.objects.filter(state=TaskRun.State.PAUSED).exists(), what="the pause"
    )
    shop.wait_until_said(mention.ts, 1)
    erase()
    assert_nothing_is_left(shop, mention.ts, said=1)


def test_messages_that_wait_are_not_taken_up(shop: World):
    mention = shop.handle()
    shop.gateway.hold_next()
    shop.reply(mention, "and what does it sell?")
    wait_until(lambda: len(shop.gateway.requests(AGENT)) == 2, what="the agent's call")
    shop.reply(mention, "and where?", addressed=True)
    erase()
    shop.gateway.release()
    assert_nothing_is_left(shop, mention.ts, said=1, asked=2)
    assert FollowUp.objects.get(state=FollowUp.State.DROPPED).outcome == "erased"


def test_an_open_conversation_ends_so_that_no_model_is_told_of_it(shop: World):
    mention = shop.handle()
    erase()
    assert_nothing_is_left(shop, mention.ts, said=1, asked=1)
    assert CodingTask.objects.get().state == CodingTask.State.STOPPED


def test_a_mention_that_has_no_task_yet_asks_no_model(two_repositories: World, monkeypatch):
    check = access.check
    monkeypatch.setattr(access, "check", lambda *given: [erase(), check(*given)][1])
    mention = two_repositories.start("what is this?")
    wait_for_close(mention.workflow_id)
    assert_nothing_is_left(two_repositories, mention.ts)
    assert two_repositories.gateway.requests(CLASSIFIER) == []


@pytest.mark.parametrize("is_told", [True, False])
def test_no_task_is_created_for_a_mention_that_was_erased_meanwhile(
    shop: World, monkeypatch, is_told
):
    if not is_told:
        monkeypatch.setattr(client, "cancel_all", lambda _workflow_ids: None)
    create, created = creation.create_task, []

    def create_after_erasure(*given, **options):
        erase()
        try:
            return create(*given, **options)
        finally:
            created.append(given)

    monkeypatch.setattr(creation, "create_task", create_after_erasure)
    mention = shop.start("our secret")
    wait_for_close(mention.workflow_id)
    wait_until(lambda: created, what="the end of the activity")
    assert not CodingTask.objects.exists()
    assert_nothing_is_left(shop, mention.ts)


def test_a_task_that_is_created_in_the_middle_of_the_erasure_is_stopped(shop: World, monkeypatch):
    """The task's transaction was first to lock the mention, so the erasure waits for it."""
    creating, closing_mention = threading.Event(), threading.Event()
    create, close = creation.create_task, closing.close

    def create_first(*given, **options):
        creating.set()
        closing_mention.wait(60)
        return create(*given, **options)

    def close_after_creation(*given, **options):
        closing_mention.set()
        if connection.vendor == "postgresql":  # SQLite allows only one writer
            wait_until(CodingTask.objects.exists, what="the task")
        return close(*given, **options)

    monkeypatch.setattr(client, "cancel_all", lambda _workflow_ids: None)
    monkeypatch.setattr(creation, "create_task", create_first)
    monkeypatch.setattr(closing, "close", close_after_creation)
    mention = shop.start("our secret")
    creating.wait(60)
    erase()
    wait_for_close(mention.workflow_id)
    assert not CodingTask.objects.filter(state=CodingTask.State.ACTIVE).exists()
    assert_nothing_is_left(shop, mention.ts)


def test_an_answer_that_slack_did_not_take_yet_is_not_posted(shop: World):
    shop.slack.fail_next("chat.postMessage", "ratelimited", retry_after=60)
    mention = shop.start()
    wait_until(lambda: Notice.objects.exclude(error="").exists(), what="the attempt to post it")
    erase()
    Notice.objects.update(next_attempt_at=mention.received_at)
    assert_nothing_is_left(shop, mention.ts, asked=1)


def test_an_answer_that_was_just_kept_is_not_posted(shop: World, monkeypatch):
    perform = runs.perform
    monkeypatch.setattr(runs, "perform", lambda *given: [perform(*given), erase()][0])
    mention = shop.start()
    wait_until(Notice.objects.exists, what="the notice")
    assert_nothing_is_left(shop, mention.ts, asked=1)


def test_an_answer_that_is_claimed_in_the_middle_of_the_erasure_is_not_posted(shop: World):
    mention = shop.handle()
    Notice.objects.all().delete()
    run = TaskRun.objects.get()

    def claim() -> None:
        notices.claim_answer(run, mention)
        connection.close()

    claiming = threading.Thread(target=claim)

    def claim_first(execute, sql, *given):
        if sql.startswith('UPDATE "coding_tasks_taskrun"') and not claiming.ident:
            claiming.start()
            if connection.vendor == "postgresql":  # SQLite allows only one writer
                claiming.join()
        return execute(sql, *given)

    with connection.execute_wrapper(claim_first):
        erase()
    claiming.join()
    assert ERASED in Notice.objects.get().text
    assert_nothing_is_left(shop, mention.ts, said=1, asked=1)


def test_a_reply_that_is_erased_during_its_decision_starts_nothing(shop: World, monkeypatch):
    shop.limit()
    denied = shop.handle("our secret")
    shop.top_up()
    refusal_for = denials.refusal_for
    monkeypatch.setattr(
        denials, "refusal_for", lambda *given, **to: [erase(), refusal_for(*given, **to)][1]
    )
    reply = shop.posted_reply(denied, "go on with our secret")
    fields = {each: getattr(reply, each) for each in ("channel_id", "ts", "thread_ts", "user_id")}
    row = ThreadReply(workspace=shop.workspace, text=reply.text, **fields)
    assert replies.decide(replies.keep(row)) is None
    assert set(Mention.objects.values_list("text", flat=True)) == {ERASED}
    assert not FollowUp.objects.exists()
    assert_nothing_is_left(shop, denied.ts, said=1)


@pytest.mark.usefixtures("shop")
def test_a_message_that_is_being_sent_in_parts_is_not_sent_on(world: World, monkeypatch):
    mention = world.mention()
    notice = notices.claim("answer:1", Notice.Kind.ANSWER, mention, "words " * 2_000)
    Notice.objects.update(destination=Notice.Destination.PARTS)
    world.slack.take_at_most(4_000)
    send = notices.posting.post
    monkeypatch.setattr(notices.posting, "post", lambda *given: [send(*given), erase()][0])
    notices.deliver(notice)
    assert len(world.said(mention.ts)) == 1


def test_a_mention_that_was_handed_to_a_task_does_not_begin_anew(shop: World):
    mention = shop.mention()
    mention.state = Mention.State.FORWARDED
    mention.save()
    waiting = FollowUp(
        workspace=shop.workspace,
        channel_id="C1",
        ts=mention.ts,
        thread_ts=mention.ts,
        user_id="U1",
        text=mention.text,
        addressed=True,
        workflow_id="gone",
    )
    waiting.save()
    erase()
    follow_ups.signal(waiting)  # by a sweep that had read it before
    sweep()
    mention.refresh_from_db()
    assert mention.state == Mention.State.FORWARDED
