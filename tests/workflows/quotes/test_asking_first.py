"""A mention whose run may cost much asks first, and waits for the answer without a worker."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from coding_tasks.models import CodingTask, TaskRun
from projects.models import OAuthAccessToken
from quota.resources import MICRO
from tests.conftest import wait_until
from tests.workflows.fake_gateway import AGENT
from tests.workflows.quotes.past_runs import past_runs
from tests.workflows.stopping.test_stopping import order
from tests.workflows.temporal_server import wait_for_close
from tests.workflows.worker_thread import WorkerThread
from tests.workflows.world import World
from workflows import tasks
from workflows.erasure import erase
from workflows.intake import changes
from workflows.models import CostConfirmation, FollowUp, Mention, RunQuote
from workflows.progress import showing
from workflows.quotes import answering

FORM = "application/x-www-form-urlencoded"
State = RunQuote.State


@pytest.fixture
def asking(shop: World) -> World:
    """The world with a project whose runs cost 1 to 19 credits and ask above 5."""
    CostConfirmation.objects.create(project=shop.project, ask_above_micro=5 * MICRO)
    past_runs(shop.workspace, range(1, 20))
    return shop


def run_of(mention: Mention) -> TaskRun:
    return TaskRun.objects.get(message_ts=mention.ts)


def wait_for_question(world: World, mention: Mention) -> dict:
    """Wait until the question is in the thread; return its message."""
    world.wait_until_said(mention.thread_ts, 1)
    return world.slack.bot_messages("C1", mention.thread_ts)[-1]


def ask(world: World, text: str = "what is this?") -> tuple[Mention, dict]:
    mention = world.start(text)
    return mention, wait_for_question(world, mention)


def click(world: World, run: TaskRun, wanted: str = State.ACCEPTED, user: str = "U1") -> None:
    """Click a button. Only the sweep tells the workflow."""
    answering.answer(world.workspace, run.pk, user, wanted, timezone.now())
    tasks.settle_quotes()


def last_said(world: World, mention: Mention) -> str:
    world.send_all()
    return world.said(mention.thread_ts)[0]


@pytest.mark.usefixtures("worker")
def test_a_run_below_the_threshold_begins_unasked(asking: World):
    CostConfirmation.objects.update(ask_above_micro=19 * MICRO)
    mention = asking.handle()
    assert mention.state == Mention.State.ANSWERED
    assert len(asking.said(mention.ts)) == 1
    quote = RunQuote.objects.get()
    assert (quote.state, quote.low_micro, quote.high_micro) == (State.SHOWN, MICRO, 19 * MICRO)
    assert run_of(mention).accepted_micro is None


@pytest.mark.case("U7")
@pytest.mark.usefixtures("worker")
def test_nothing_begins_before_the_click_whose_number_becomes_the_cap(
    asking: World, client: Client
):
    mention, question = ask(asking)
    assert question["text"].startswith("<@U1>, before I start: Nine of ten comparable runs")
    assert asking.gateway.requests() == []
    asking.gateway.hold_next()
    button = question["blocks"][-1]["elements"][0]
    interactions = asking.slack.slack.interactions
    payload = interactions.block_actions(
        question, "C1", "U1", {"type": "button", "block_id": "", **button}
    )
    request = interactions.signed_payload(payload)
    for _ in range(2):  # the second one is a redelivery
        answer = client.post(request.path, request.body, content_type=FORM, headers=request.headers)
        assert answer.status_code == 200
    tasks.tell_quote_answer(str(run_of(mention).pk))
    wait_until(lambda: asking.gateway.requests(AGENT), what="the agent's call")
    assert OAuthAccessToken.objects.get().accepted_micro == 19 * MICRO
    asking.gateway.release()
    asking.wait_for_end(mention, Mention.State.ANSWERED)
    asking.send_all()
    asked, answer = asking.slack.bot_messages("C1", mention.ts)
    assert asked["text"] == "<@U1> accepted up to 19 credits for this."
    assert not asked.get("blocks")
    assert not asking.slack.ephemeral_messages("C1")


@pytest.mark.usefixtures("worker")
def test_smaller_caps_the_run_at_the_smaller_number(asking: World):
    mention, _ = ask(asking)
    click(asking, run_of(mention), State.SMALLER)
    asking.wait_for_end(mention, Mention.State.ANSWERED)
    assert run_of(mention).accepted_micro == 10 * MICRO
    assert last_said(asking, mention) == "<@U1> accepted up to 10 credits for this."


@pytest.mark.usefixtures("worker")
def test_a_run_that_used_what_was_accepted_ends_and_says_so(asking: World):
    asking.gateway.refuse_next("slack_app", cause="accepted_cap_reached")
    mention, _ = ask(asking)
    click(asking, run_of(mention))
    asking.wait_for_end(mention, Mention.State.FAILED)
    asking.send_all()
    assert "that were accepted for it. Ask again to go on." in asking.said(mention.ts)[1]
    assert run_of(mention).used_all_accepted


@pytest.mark.usefixtures("worker")
def test_cancel_ends_the_mention_and_frees_its_thread(asking: World):
    mention, _ = ask(asking)
    waiting = asking.reply(mention, "and more")
    click(asking, run_of(mention), State.CANCELLED)
    wait_for_close(mention.workflow_id)
    mention.refresh_from_db()
    assert mention.state == Mention.State.STOPPED
    assert mention.outcome == "cancelled because of what it may cost"
    assert CodingTask.objects.get(thread_ts=mention.ts).state == CodingTask.State.STOPPED
    assert last_said(asking, mention) == "<@U1> cancelled this, so it has not started."
    waiting.refresh_from_db()
    assert waiting.state == FollowUp.State.DROPPED
    assert asking.gateway.requests(AGENT) == []
    CostConfirmation.objects.all().delete()
    again = asking.handle("again", thread_ts=mention.ts)
    assert again.state == Mention.State.ANSWERED


@pytest.mark.usefixtures("worker")
def test_a_question_without_an_answer_expires(asking: World, hurried):
    hurried(quote_seconds=0.5)
    mention, _ = ask(asking)
    asking.wait_for_end(mention, Mention.State.FAILED)
    wait_for_close(mention.workflow_id)
    assert mention.outcome == "nobody answered the question about its cost"
    expired = "<@U1>, nobody answered in time, so I have not started this."
    assert last_said(asking, mention).startswith(expired)
    click(asking, run_of(mention))
    asking.send_all()
    [told] = asking.slack.ephemeral_messages("C1")
    assert told["text"] == "<@U1>, this question has expired. Ask again to start."
    assert asking.gateway.requests(AGENT) == []


@pytest.mark.usefixtures("worker")
def test_stop_ends_a_run_that_waits_for_its_answer(asking: World):
    mention, _ = ask(asking)
    order(asking, mention)
    wait_for_close(mention.workflow_id)
    click(asking, run_of(mention))
    dropped = "This ended before it began, so there is nothing to decide."
    assert last_said(asking, mention) == dropped
    [told] = asking.slack.ephemeral_messages("C1")
    assert told["text"] == "<@U1>, this has ended already, so there is nothing to decide."
    assert run_of(mention).accepted_micro is None
    assert RunQuote.objects.get(run=run_of(mention)).state == State.DROPPED


@pytest.mark.usefixtures("worker")
def test_the_deletion_of_the_message_ends_its_run(asking: World):
    mention, _ = ask(asking)
    changes.withdraw_run(asking.workspace, "C1", mention.ts)
    wait_for_close(mention.workflow_id)
    mention.refresh_from_db()
    assert (mention.state, mention.outcome) == ("stopped", "deleted before its work began")
    assert last_said(asking, mention).startswith("This ended before it began")
    click(asking, run_of(mention))
    assert run_of(mention).accepted_micro is None
    assert asking.gateway.requests(AGENT) == []


@pytest.mark.usefixtures("worker")
def test_an_edit_before_the_click_changes_what_is_done(asking: World):
    mention, _ = ask(asking)
    mention.refresh_from_db()
    changes.rewrite(mention, "<@UBOT> only the cart, please")
    click(asking, run_of(mention))
    asking.wait_for_end(mention, Mention.State.ANSWERED)
    [request] = asking.gateway.requests(AGENT)
    assert request.body["messages"][-1]["content"] == "only the cart, please"
    changes.rewrite(mention, "<@UBOT> all of it")
    assert run_of(mention).request == "only the cart, please"


@pytest.mark.usefixtures("worker")
def test_an_erasure_ends_a_run_that_waits_for_its_answer(asking: World):
    mention, _ = ask(asking)
    erase("T1", "U1")
    wait_for_close(mention.workflow_id)
    tasks.settle_quotes()
    assert RunQuote.objects.get(run=run_of(mention)).state == State.DROPPED


@pytest.mark.usefixtures("worker")
def test_each_follow_up_asks_for_itself(asking: World):
    mention, _ = ask(asking)
    click(asking, run_of(mention))
    asking.wait_for_end(mention, Mention.State.ANSWERED)
    cancelled, accepted = (asking.reply(mention, text) for text in ("and this?", "and that?"))

    def answer(follow_up: FollowUp, wanted: str) -> None:
        def is_asked() -> bool:
            return RunQuote.objects.filter(run__message_ts=follow_up.ts).exists()

        wait_until(is_asked, what="the question about the follow-up")
        click(asking, TaskRun.objects.get(message_ts=follow_up.ts), wanted)

    answer(cancelled, State.CANCELLED)
    answer(accepted, State.ACCEPTED)
    asking.wait_until_said(mention.ts, 5)  # three questions, and two answers
    states = {
        run.message_ts: run.state for run in TaskRun.objects.filter(task__thread_ts=mention.ts)
    }
    assert states == {mention.ts: "succeeded", cancelled.ts: "stopped", accepted.ts: "succeeded"}
    assert CodingTask.objects.get(thread_ts=mention.ts).state == CodingTask.State.ACTIVE


@pytest.mark.usefixtures("worker")
def test_the_deletion_of_a_follow_up_lets_the_conversation_go_on(asking: World):
    mention, _ = ask(asking)
    click(asking, run_of(mention))
    asking.wait_for_end(mention, Mention.State.ANSWERED)
    follow_up = asking.reply(mention, "and this?")
    asking.wait_until_said(mention.ts, 3)
    changes.withdraw_run(asking.workspace, "C1", follow_up.ts)
    tasks.settle_quotes()
    about_it = RunQuote.objects.filter(run__message_ts=follow_up.ts)
    wait_until(lambda: about_it.get().heard_at, what="the workflow's hearing of the deletion")
    CostConfirmation.objects.all().delete()
    asking.reply(mention, "and that?")
    asking.wait_until_said(mention.ts, 4)
    assert TaskRun.objects.get(message_ts=follow_up.ts).state == TaskRun.State.STOPPED


def test_an_answer_given_while_no_worker_runs_is_taken_up_by_the_next_one(asking: World, settings):
    with WorkerThread(settings.TEMPORAL_TASK_QUEUE):
        mention, _ = ask(asking)
    answering.answer(asking.workspace, run_of(mention).pk, "U1", State.ACCEPTED, timezone.now())
    tasks.settle_quotes()
    with WorkerThread(settings.TEMPORAL_TASK_QUEUE):
        asking.wait_for_end(mention, Mention.State.ANSWERED)
    assert not RunQuote.objects.filter(heard_at=None, state=State.ACCEPTED).exists()


@pytest.mark.usefixtures("worker")
def test_the_progress_shows_the_quote_and_the_accepted_number(asking: World, settings, monkeypatch):
    settings.PROGRESS_AFTER_SECONDS = 0
    monkeypatch.setattr(showing, "WITHOUT_STEPS", timedelta(0))
    asking.gateway.hold_next()
    mention, _ = ask(asking)
    click(asking, run_of(mention))
    wait_until(lambda: asking.gateway.requests(AGENT), what="the agent's call")
    tasks.show_progress()
    tasks.deliver_pending_notices()
    shown = asking.slack.bot_messages("C1", mention.ts)[-1]
    assert shown["blocks"][2]["elements"][0]["text"] == (
        "Nine of ten comparable runs used 1.00 to 19.00 credits. "
        "It stops at the 19.00 credits that were accepted."
    )
    asking.gateway.release()
    asking.wait_for_end(mention, Mention.State.ANSWERED)
