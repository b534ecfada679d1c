"""Erased words are no longer posted or sent to a model."""

import pytest
from django.core.management import call_command

from coding_tasks import creation, runs
from coding_tasks.models import CodingTask, TaskRun
from projects.models import OAuthAccessToken
from tests.conftest import wait_until
from tests.workflows.fake_gateway import AGENT, CLASSIFIER
from tests.workflows.temporal import wait_for_close
from tests.workflows.world import World
from workflows import client, notices, tasks
from workflows.intake import follow_ups
from workflows.models import ERASED, FollowUp, Mention, Notice
from workflows.slack import access

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
    """Run everything that may still happen."""
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


def test_a_task_that_is_created_during_the_erasure_keeps_no_text(shop: World, monkeypatch):
    create = creation.create_task
    monkeypatch.setattr(creation, "create_task", lambda *given: [erase(), create(*given)][1])
    mention = shop.start("our secret")
    wait_for_close(mention.workflow_id)
    wait_until(TaskRun.objects.filter(request=ERASED).exists, what="the end of the activity")
    assert CodingTask.objects.get().state == CodingTask.State.STOPPED
    assert_nothing_is_left(shop, mention.ts)


def test_a_task_whose_workflow_ends_while_it_is_created_is_stopped(shop: World, monkeypatch):
    create = creation.create_task

    def create_slowly(request, repository, workflow_id):
        erase()
        run = create(request, repository, workflow_id)
        wait_for_close(workflow_id)
        return run

    monkeypatch.setattr(creation, "create_task", create_slowly)
    mention = shop.start("our secret")
    wait_for_close(mention.workflow_id)
    wait_until(TaskRun.objects.filter(request=ERASED).exists, what="the end of the activity")
    assert TaskRun.objects.get().state == TaskRun.State.STOPPED
    assert CodingTask.objects.get().state == CodingTask.State.STOPPED
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
