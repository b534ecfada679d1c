"""Runs that pause for lack of credits, and go on as soon as there are some."""

from collections import Counter

import pytest
from django.db import connections

from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from coding_tasks import runs
from coding_tasks.models import CodingTask, TaskRun
from projects.models import OAuthAccessToken
from quota.resources import AI_CREDITS, MICRO
from tests.conftest import wait_until
from tests.workflows.fake_gateway import AGENT
from tests.workflows.temporal_server import history, terminate, wait_for_close
from tests.workflows.world import World
from workflows import denials, tasks
from workflows.intake import replies
from workflows.models import FollowUp, Mention, ThreadReply
from workflows.requests import texts_of
from workflows.temporal import client

pytestmark = pytest.mark.usefixtures("worker")

RECHECK = 3600
"""Seconds between a run's own checks of credits: no test waits for the next one."""


@pytest.fixture(autouse=True)
def _unhurried(hurried) -> None:
    """During a test, no run looks for credits unprompted."""
    hurried(recheck_seconds=RECHECK)


def paused(world: World, before_refusing=lambda: None) -> Mention:
    """Start a mention whose run is refused; return it once the workflow waits."""
    world.gateway.refuse_next("slack_app")
    world.gateway.before_refusing(before_refusing)
    mention = world.start()
    world.wait_until_said(mention.ts, 1)
    wait_until(lambda: TaskRun.objects.get().state == TaskRun.State.PAUSED, what="the pause")
    return mention


def exhaust(world: World) -> None:
    """Take the credits away, on a thread of the gateway."""
    set_limit(world.project.organization, AI_CREDITS, 0)
    connections.close_all()


def rechecks(mention: Mention) -> int:
    """Return how many times the workflow began to wait for its next check of credits."""
    timers = [
        event.timer_started_event_attributes.start_to_fire_timeout.seconds
        for event in history(mention.workflow_id).events
        if event.HasField("timer_started_event_attributes")
    ]
    return timers.count(RECHECK)


def carry_out_hints(redis) -> None:
    """Run `wake_paused_runs` if Celery was asked to."""
    hints = Counter(redis.lrange("celery", 0, -1))
    redis.delete("celery")
    for hint in hints:
        if "wake_paused_runs" in hint:
            tasks.wake_paused_runs()


def activities(mention: Mention) -> Counter[str]:
    """Return how often each ordinary activity of a mention was completed."""
    events = history(mention.workflow_id).events
    names = {
        event.event_id: event.activity_task_scheduled_event_attributes.activity_type.name
        for event in events
    }
    return Counter(
        names[event.activity_task_completed_event_attributes.scheduled_event_id]
        for event in events
        if event.HasField("activity_task_completed_event_attributes")
    )


@pytest.mark.case("W10")
def test_a_top_up_wakes_a_paused_run_which_goes_on_where_it_stood(shop: World):
    mention = paused(shop, lambda: exhaust(shop))
    shop.gateway.answer_next("It is a shop.")
    wait_until(lambda: activities(mention)["deliver_notice"], what="the delivery being recorded")
    before = activities(mention)

    grant_credits(shop.project.organization, AI_CREDITS, 100 * MICRO)
    carry_out_hints(shop.redis)
    wait_until(lambda: TaskRun.objects.get().state != TaskRun.State.PAUSED, what="the run going on")

    shop.wait_for_end(mention, Mention.State.ANSWERED)
    assert shop.said(mention.ts)[1:] == ["It is a shop."]
    repeated = activities(mention) - before
    assert repeated == {"prepare_run": 1, "run_agent": 1, "deliver_notice": 1}
    [used] = shop.gateway.refused_with
    [request] = shop.gateway.requests(AGENT)
    assert request.headers["authorization"] != used
    assert not OAuthAccessToken.objects.exists()


def test_a_reply_during_a_pause_is_answered_after_the_top_up(shop: World):
    mention = paused(shop, lambda: exhaust(shop))
    shop.gateway.script("It is a shop.", "Shoes.")
    reply_by_webhook(shop, mention, "and what does it sell?")
    assert FollowUp.objects.get().state == FollowUp.State.SIGNALLED
    grant_credits(shop.project.organization, AI_CREDITS, 100 * MICRO)
    carry_out_hints(shop.redis)
    assert shop.wait_until_said(mention.ts, 3)[1:] == ["It is a shop.", "Shoes."]


def test_a_reply_just_before_the_top_up_is_answered_after_it(shop: World, monkeypatch):
    mention = paused(shop, lambda: exhaust(shop))
    shop.gateway.script("It is a shop.", "Shoes.")
    refusal_for = denials.refusal_for

    def refuse_just_before(*given, **options):
        refusal = refusal_for(*given, **options)
        if TaskRun.objects.filter(state=TaskRun.State.PAUSED).exists():
            grant_credits(shop.project.organization, AI_CREDITS, 100 * MICRO)
            carry_out_hints(shop.redis)
            shop.wait_until_said(mention.ts, 2)
        return refusal

    monkeypatch.setattr(denials, "refusal_for", refuse_just_before)
    reply_by_webhook(shop, mention, "and what does it sell?")
    assert shop.wait_until_said(mention.ts, 3)[1:] == ["It is a shop.", "Shoes."]


def test_a_reply_during_a_pause_is_refused_silently_if_no_credits_come(shop: World, hurried):
    hurried(recheck_seconds=RECHECK, pause_seconds=0.001, idle_seconds=0.1)
    mention = paused(shop, lambda: exhaust(shop))
    wait_until(lambda: rechecks(mention), what="the wait for credits")
    reply_by_webhook(shop, mention, "and what does it sell?")
    wait_for_close(mention.workflow_id)
    follow_up = FollowUp.objects.get()
    assert (follow_up.state, follow_up.outcome) == ("refused", "out of credits: limit_reached")
    tasks.deliver_pending_notices()
    assert len(shop.said(mention.ts)) == 1
    grant_credits(shop.project.organization, AI_CREDITS, 100 * MICRO)
    taken_up = reply_by_webhook(shop, mention, "go on")
    assert taken_up is not None
    assert texts_of(taken_up) == [mention.text, "and what does it sell?", "go on"]


def reply_by_webhook(world: World, mention: Mention, text: str) -> Mention | None:
    """Have the author reply in the thread; decide about the reply as the webhook does."""
    reply = world.posted_reply(mention, text)
    row = ThreadReply(
        workspace=reply.workspace,
        channel_id=reply.channel_id,
        ts=reply.ts,
        thread_ts=reply.thread_ts,
        user_id=reply.user_id,
        text=text,
    )
    return replies.decide(replies.keep(row))


@pytest.mark.parametrize("limit", [None, 1000 * MICRO])
def test_a_raised_or_removed_limit_wakes_a_paused_run(shop: World, limit):
    mention = paused(shop, lambda: exhaust(shop))
    set_limit(shop.project.organization, AI_CREDITS, limit)
    carry_out_hints(shop.redis)
    shop.wait_for_end(mention, Mention.State.ANSWERED)


def test_a_block_removed_by_hand_wakes_a_paused_run_with_the_next_sweep(shop: World):
    mention = paused(shop, shop.limit)
    tasks.wake_paused_runs()
    assert TaskRun.objects.get().woken_at is None
    shop.top_up()
    tasks.wake_paused_runs()
    shop.wait_for_end(mention, Mention.State.ANSWERED)


def test_for_a_workspace_that_uninstalled_the_app_no_credits_are_spent(shop: World):
    mention = paused(shop, shop.limit)
    shop.workspace.is_active = False
    shop.workspace.save()
    shop.top_up()
    tasks.wake_paused_runs()
    shop.wait_for_end(mention, Mention.State.FAILED)
    assert mention.outcome == "Uninstalled"
    assert shop.gateway.requests(AGENT) == []


def test_another_organizations_top_up_wakes_nobody(shop: World, stranger):
    mention = paused(shop, lambda: exhaust(shop))
    set_limit(shop.project.organization, AI_CREDITS, None)
    tasks.wake_paused_runs(str(stranger.organization_id))
    assert TaskRun.objects.get().woken_at is None
    assert "credits_gained" not in signals(mention)


def test_the_sweep_replaces_a_lost_hint_without_signalling_twice(shop: World, monkeypatch):
    mention = paused(shop, lambda: exhaust(shop))
    shop.redis.flushall()
    grant_credits(shop.project.organization, AI_CREDITS, 100 * MICRO)
    shop.redis.delete("celery")
    shop.gateway.hold_next()
    for _ in range(3):
        tasks.wake_paused_runs()
    assert signals(mention) == ["credits_gained"]
    shop.gateway.release()
    shop.wait_for_end(mention, Mention.State.ANSWERED)


def signals(mention: Mention) -> list[str]:
    received = [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in history(mention.workflow_id).events
    ]
    return [name for name in received if name]


def test_a_run_is_woken_only_by_more_credits_than_before(shop: World):
    """The gate would admit the work. Only the gateway knows what the call may cost."""
    set_limit(shop.project.organization, AI_CREDITS, 5 * MICRO)
    mention = paused(shop)
    for _ in range(3):
        tasks.wake_paused_runs()
    set_limit(shop.project.organization, AI_CREDITS, 4 * MICRO)
    tasks.wake_paused_runs()
    assert signals(mention) == []
    set_limit(shop.project.organization, AI_CREDITS, 5 * MICRO)
    tasks.wake_paused_runs()
    shop.wait_for_end(mention, Mention.State.ANSWERED)


def test_a_woken_run_that_finds_no_credits_is_woken_again(shop: World):
    mention = paused(shop, lambda: exhaust(shop))
    told = TaskRun.objects.get()
    runs.mark_woken(told)
    client.signal_credits_gained(mention.workflow_id)
    wait_until(lambda: TaskRun.objects.get().woken_at is None, what="the look in vain")
    runs.mark_woken(told)  # as by a sweep that is slower than the workflow that it signalled
    set_limit(shop.project.organization, AI_CREDITS, None)
    tasks.wake_paused_runs()
    shop.wait_for_end(mention, Mention.State.ANSWERED)


def test_credits_that_come_while_the_denial_is_being_posted_are_not_missed(shop: World):
    shop.gateway.refuse_next("slack_app")
    shop.gateway.before_refusing(lambda: exhaust(shop))
    shop.slack.hang_next("chat.postMessage", 1.5)
    mention = shop.start()
    wait_until(lambda: TaskRun.objects.filter(state=TaskRun.State.PAUSED).exists(), what="a pause")
    set_limit(shop.project.organization, AI_CREDITS, None)
    tasks.wake_paused_runs()
    shop.wait_for_end(mention, Mention.State.ANSWERED)


def test_a_run_that_is_refused_again_and_again_gives_up_when_its_pause_is_over(
    shop: World, hurried
):
    hurried(recheck_seconds=0.05, pause_seconds=1)
    shop.gateway.refuse_next("slack_app", times=1000)
    mention = shop.handle()
    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "out of credits")
    assert len(shop.said(mention.ts)) == 1
    assert len(shop.gateway.refused_with) < 10  # it tries ever less often


def test_a_paused_run_is_woken_later_if_temporal_is_down(shop: World, settings, monkeypatch):
    paused(shop, lambda: exhaust(shop))
    set_limit(shop.project.organization, AI_CREDITS, None)
    monkeypatch.setattr(client, "_connection", None)
    settings.TEMPORAL_ADDRESS = "127.0.0.1:1"
    tasks.wake_paused_runs()
    assert TaskRun.objects.get().woken_at is None


def test_a_paused_run_of_a_terminated_workflow_ends_with_a_message(shop: World):
    mention = paused(shop, lambda: exhaust(shop))
    terminate(mention.workflow_id)
    set_limit(shop.project.organization, AI_CREDITS, None)
    tasks.wake_paused_runs()
    tasks.deliver_pending_notices()
    mention.refresh_from_db()
    assert mention.state == Mention.State.FAILED
    assert CodingTask.objects.get().state == CodingTask.State.FAILED
    assert "something went wrong" in shop.said(mention.ts)[1]


def test_a_paused_run_whose_workflow_was_reset_while_it_was_being_told_is_left_alone(
    shop: World, monkeypatch
):
    mention = paused(shop, lambda: exhaust(shop))

    def ended(workflow_id: str) -> None:
        raise client.WorkflowEnded(workflow_id)  # the old run; the new one runs by now

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(client, "signal_credits_gained", ended)
        set_limit(shop.project.organization, AI_CREDITS, None)
        tasks.wake_paused_runs()
    assert CodingTask.objects.get().state == CodingTask.State.ACTIVE
    tasks.wake_paused_runs()
    shop.wait_for_end(mention, Mention.State.ANSWERED)
