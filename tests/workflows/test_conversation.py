"""The conversation in a task's thread: follow-ups, paused runs, and the end."""

import base64
import json
from functools import partial

import pytest
from temporalio.client import WorkflowExecutionStatus

from billing.allowances.caps import set_cap
from billing.ingestion import ledger
from coding_tasks.models import CodingTask, Repository, TaskRun
from quota.resources import AI_CREDITS, MICRO
from tests.billing.world import usage_event
from tests.conftest import wait_until
from tests.workflows.fake_gateway import AGENT
from tests.workflows.temporal_server import cancel, history, terminate, wait_for_close
from tests.workflows.threads import at_once
from tests.workflows.world import World
from workflows.mention_types import RepositoryChoice
from workflows.models import FollowUp, Mention, Notice
from workflows.temporal import client

pytestmark = pytest.mark.usefixtures("worker")


def test_a_follow_up_is_answered_by_the_same_task_with_earlier_turns(shop: World):
    shop.gateway.script("It is a shop.", "Shoes.")
    mention = shop.handle("what is this?")

    follow_up = shop.reply(mention, "what does it sell?")

    assert shop.wait_until_said(mention.ts, 2) == ["It is a shop.", "Shoes."]
    shop.wait_for_follow_up(follow_up, FollowUp.State.HANDLED)
    assert CodingTask.objects.get().runs.count() == 2
    assert [each["content"] for each in shop.gateway.requests(AGENT)[1].body["messages"]] == [
        "what is this?",
        "It is a shop.",
        "what does it sell?",
    ]


def test_a_follow_up_signalled_twice_is_answered_once(shop: World):
    mention = shop.handle()
    follow_up = shop.reply(mention, "and?")
    client.signal_follow_up(follow_up)
    shop.wait_until_said(mention.ts, 2)
    client.signal_follow_up(follow_up)
    last = shop.reply(mention, "the last one")
    shop.wait_until_said(mention.ts, 3)
    shop.wait_for_follow_up(last, FollowUp.State.HANDLED)
    assert len(shop.gateway.requests(AGENT)) == 3
    assert len(shop.said(mention.ts)) == 3


@pytest.mark.case("W8")
def test_follow_ups_sent_while_the_agent_works_are_answered_one_after_the_other(shop: World):
    mention = shop.handle()
    replies = [shop.reply(mention, f"question {number}") for number in range(3)]
    shop.wait_until_said(mention.ts, 4)
    for each in replies:
        shop.wait_for_follow_up(each, FollowUp.State.HANDLED)
    asked = [request.body["messages"][-1]["content"] for request in shop.gateway.requests(AGENT)]
    assert asked[1:] == ["question 0", "question 1", "question 2"]


def test_a_follow_up_without_credits_is_denied_and_counts_as_handled(shop: World):
    mention = shop.handle()
    shop.limit()

    follow_up = shop.reply(mention, "<@UBOT> more", addressed=True)

    shop.wait_for_follow_up(follow_up, FollowUp.State.REFUSED)
    assert "AI credits" in shop.wait_until_said(mention.ts, 2)[1]
    shop.top_up()
    later = shop.reply(mention, "and now?")
    shop.wait_for_follow_up(later, FollowUp.State.HANDLED)
    shop.wait_until_said(mention.ts, 3)
    assert CodingTask.objects.count() == 1
    assert len(shop.gateway.requests(AGENT)) == 2


def test_remarks_without_credits_are_not_denied_one_by_one(shop: World):
    mention = shop.handle()
    shop.limit()
    remarks = [shop.reply(mention, f"remark {number}") for number in range(3)]
    for remark in remarks:
        shop.wait_for_follow_up(remark, FollowUp.State.REFUSED)
    shop.top_up()
    last = shop.reply(mention, "and now?")
    shop.wait_for_follow_up(last, FollowUp.State.HANDLED)
    assert len(shop.notices(Notice.Kind.DENIAL)) <= 1


def test_a_failed_follow_up_is_reported_and_the_conversation_goes_on(shop: World):
    mention = shop.handle()
    shop.gateway.fail_next(400, "invalid_request_error")
    shop.reply(mention, "break")
    assert "something went wrong" in shop.wait_until_said(mention.ts, 2)[1]
    shop.gateway.answer_next("Fine again.")
    shop.reply(mention, "go on")
    assert shop.wait_until_said(mention.ts, 3)[2] == "Fine again."
    mention.refresh_from_db()
    assert mention.state == Mention.State.ANSWERED


def test_a_failed_follow_up_signalled_again_is_not_tried_again(shop: World):
    mention = shop.handle()
    shop.gateway.fail_next(400, "invalid_request_error")
    follow_up = shop.reply(mention, "and?")
    shop.wait_until_said(mention.ts, 2)
    client.signal_follow_up(follow_up)
    last = shop.reply(mention, "the last one")
    shop.wait_for_follow_up(last, FollowUp.State.HANDLED)
    assert TaskRun.objects.get(message_ts=follow_up.ts).state == TaskRun.State.FAILED


def test_a_follow_up_is_checked_against_the_project_that_pays(shop: World, stranger):
    mention = shop.handle()
    shop.limit()
    shop.workspace.project = stranger
    shop.workspace.save()
    follow_up = shop.reply(mention, "<@UBOT> more", addressed=True)
    shop.wait_for_follow_up(follow_up, FollowUp.State.REFUSED)
    assert len(shop.gateway.requests(AGENT)) == 1


def test_a_reply_while_the_picker_is_open_is_answered_after_its_mention_by_the_same_task(
    two_repositories: World,
):
    world = two_repositories
    world.gateway.script("none", "It is a shop.", "Shoes.")
    mention = world.start("what is this?")
    world.wait_until_said(mention.ts, 1)
    reply = world.reply_early(mention, "and what does it sell?")
    chosen = Repository.objects.get(full_name="acme/shop")
    client.signal_repository_choice(mention.workflow_id, RepositoryChoice(chosen.pk))
    assert world.wait_until_said(mention.ts, 3)[1:] == ["It is a shop.", "Shoes."]
    world.wait_for_follow_up(reply, FollowUp.State.HANDLED)
    assert CodingTask.objects.get().runs.count() == 2


def test_a_reply_while_the_picker_is_open_is_dropped_when_nothing_is_picked(
    two_repositories: World, hurried
):
    world = two_repositories
    hurried(picker_seconds=3)
    world.gateway.answer_next("none")
    mention = world.start("what is this?")
    world.wait_until_said(mention.ts, 1)
    reply = world.reply_early(mention, "and what does it sell?")
    world.wait_for_follow_up(reply, FollowUp.State.DROPPED)
    world.wait_for_end(mention, Mention.State.FAILED)
    assert not CodingTask.objects.exists()


def test_a_reply_whose_mention_is_refused_when_the_task_is_made_is_met_with_one_denial(
    two_repositories: World,
):
    world = two_repositories
    world.gateway.answer_next("none")
    mention = world.start("what is this?")
    world.wait_until_said(mention.ts, 1)
    world.limit()
    reply = world.reply_early(mention, "and what does it sell?")
    chosen = Repository.objects.get(full_name="acme/shop")
    client.signal_repository_choice(mention.workflow_id, RepositoryChoice(chosen.pk))
    world.wait_for_follow_up(reply, FollowUp.State.DROPPED)
    world.wait_for_end(mention, Mention.State.REFUSED)
    assert len(world.notices(Notice.Kind.DENIAL)) == 1
    assert not CodingTask.objects.exists()


# --- Two mentions in one thread ------------------------------------------------------------------


@pytest.mark.case("W9")
def test_two_mentions_at_once_in_one_thread_make_one_task_with_both_texts(shop: World):
    root = shop.slack.post("good morning", user="U1")
    mentions = [shop.mention(text, thread_ts=root["ts"]) for text in ("first", "second")]
    at_once(*[partial(client.start_mention, mention) for mention in mentions])

    for mention in mentions:
        shop.wait_for_end(mention)

    assert {mention.state for mention in mentions} == {
        Mention.State.ANSWERED,
        Mention.State.FORWARDED,
    }
    shop.wait_until_said(root["ts"], 2)
    task = CodingTask.objects.get()
    assert {run.request for run in task.runs.all()} == {"first", "second"}
    assert len(shop.said(root["ts"])) == 2


def test_another_users_mention_does_not_steer_the_task(shop: World):
    mention = shop.handle()
    theirs = shop.handle("do this instead", thread_ts=mention.ts, user="U2")
    assert (theirs.state, theirs.outcome) == (Mention.State.REFUSED, "another user's task")
    assert "belongs to" in shop.said(mention.ts)[1]
    assert len(shop.gateway.requests(AGENT)) == 1
    assert TaskRun.objects.count() == 1


def test_a_task_whose_workflow_was_terminated_does_not_block_its_thread(shop: World):
    mention = shop.handle()
    terminate(mention.workflow_id)

    again = shop.handle("once more", thread_ts=mention.ts)

    assert again.state == Mention.State.ANSWERED
    states = CodingTask.objects.order_by("created_at").values_list("state", flat=True)
    assert list(states) == [CodingTask.State.FAILED, CodingTask.State.ACTIVE]


def test_a_follow_up_for_a_workflow_that_is_gone_is_dropped_and_frees_the_thread(shop: World):
    mention = shop.handle()
    terminate(mention.workflow_id)
    shop.reply(mention, "are you there?")
    assert FollowUp.objects.get().state == FollowUp.State.DROPPED
    assert CodingTask.objects.get().state == CodingTask.State.FAILED


# --- Credits that end half-way -------------------------------------------------------------------


def test_a_run_refused_half_way_is_denied_once_and_goes_on_after_a_top_up(shop: World, hurried):
    hurried(recheck_seconds=0.1)
    shop.gateway.refuse_next("slack_app")
    shop.limit_after_next_gate()

    mention = shop.start()

    [denial] = shop.wait_until_said(mention.ts, 1)
    assert denial.startswith("I had to stop half-way. ")
    wait_until(lambda: TaskRun.objects.get().state == TaskRun.State.PAUSED, what="the pause")
    shop.gateway.answer_next("It is a shop.")
    shop.top_up()
    shop.wait_for_end(mention, Mention.State.ANSWERED)
    assert shop.said(mention.ts) == [denial, "It is a shop."]
    assert TaskRun.objects.get().state == TaskRun.State.SUCCEEDED
    tokens = {each.headers["authorization"] for each in shop.gateway.requests(AGENT)}
    assert len(tokens) == 1
    for method in ("users.info", "reactions.add"):
        assert len(shop.slack.calls(method)) == 1


def test_a_run_over_its_cap_says_so_and_goes_on_when_the_cap_is_raised(shop: World, hurried):
    hurried(recheck_seconds=0.1)
    set_cap(shop.project.organization, AI_CREDITS, "run", 12 * MICRO)
    shop.gateway.refuse_next("slack_app", cause="run_cap_reached")
    shop.gateway.before_refusing(lambda: at_once(partial(_book_for_the_run, shop)))

    mention = shop.start()

    [denial] = shop.wait_until_said(mention.ts, 1)
    assert "This task has used the Tollgate AI credits that one task may use." in denial
    wait_until(lambda: TaskRun.objects.get().state == TaskRun.State.PAUSED, what="the pause")
    shop.gateway.answer_next("It is a shop.")
    set_cap(shop.project.organization, AI_CREDITS, "run", 100 * MICRO)
    shop.wait_for_end(mention, Mention.State.ANSWERED)


@pytest.mark.parametrize("cap_of_the_team", [None, 1_000 * MICRO])
def test_a_run_that_reached_the_gateways_own_cap_ends_and_asks_for_no_top_up(
    shop: World, cap_of_the_team
):
    if cap_of_the_team is not None:
        set_cap(shop.project.organization, AI_CREDITS, "run", cap_of_the_team)
    shop.gateway.refuse_next("slack_app", cause="gateway_run_cap_reached")
    mention = shop.handle()
    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "RunCapReached")
    assert shop.said(mention.ts) == [
        "I had to stop half-way. This task has used the Tollgate AI credits that one task may use. "
        "Try a smaller request."
    ]
    assert TaskRun.objects.get().state == TaskRun.State.FAILED


def _book_for_the_run(shop: World) -> None:
    run = str(TaskRun.objects.get().pk)
    ledger.book([usage_event(shop.project, properties={"task_run_id": run})])


def test_a_message_in_the_thread_wakes_a_paused_run(shop: World, hurried):
    hurried(recheck_seconds=3600)
    shop.gateway.refuse_next("slack_app")
    mention = shop.start()
    shop.wait_until_said(mention.ts, 1)
    shop.reply(mention, "credits are back")
    shop.wait_for_end(mention, Mention.State.ANSWERED)
    shop.wait_until_said(mention.ts, 3)


def test_a_run_is_given_up_silently_if_no_credits_come(shop: World, hurried):
    hurried(recheck_seconds=0.1, pause_seconds=0.3)
    shop.gateway.refuse_next("slack_app")
    shop.limit_after_next_gate()
    mention = shop.handle()
    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "out of credits")
    assert len(shop.said(mention.ts)) == 1
    wait_for_close(mention.workflow_id)
    assert TaskRun.objects.get().state == TaskRun.State.FAILED
    assert CodingTask.objects.get().state == CodingTask.State.FAILED


# --- The end -------------------------------------------------------------------------------------


def test_a_thread_that_falls_silent_ends_its_task(shop: World, hurried):
    hurried(idle_seconds=0.2)
    mention = shop.handle()
    assert wait_for_close(mention.workflow_id) == WorkflowExecutionStatus.COMPLETED
    task = CodingTask.objects.get()
    assert task.state == CodingTask.State.DONE
    assert task.finished_at


def test_an_unsignalled_message_is_answered_before_the_task_ends(shop: World, hurried, monkeypatch):
    hurried(idle_seconds=0.2)
    monkeypatch.setattr(client, "signal_follow_up", lambda _follow_up: None)
    shop.gateway.hold_next()
    mention = shop.start()
    wait_until(lambda: shop.gateway.requests(AGENT), what="the agent asking the model")
    follow_up = shop.reply(mention, "recorded, and the request died")
    shop.gateway.release()
    shop.wait_until_said(mention.ts, 2)
    shop.wait_for_follow_up(follow_up, FollowUp.State.HANDLED)
    wait_for_close(mention.workflow_id)
    task = CodingTask.objects.get()
    assert task.state == CodingTask.State.DONE
    assert task.finished_at > task.runs.latest("finished_at").finished_at


def test_a_cancelled_workflow_tells_the_thread_and_frees_it(shop: World):
    mention = shop.handle()
    cancel(mention.workflow_id)
    assert wait_for_close(mention.workflow_id) == WorkflowExecutionStatus.CANCELED
    assert CodingTask.objects.get().state == CodingTask.State.FAILED
    assert "something went wrong" in shop.said(mention.ts)[1]


def test_a_cancelled_run_of_the_agent_ends_the_mention(shop: World):
    shop.gateway.hold_next()
    mention = shop.start()
    wait_until(lambda: shop.gateway.requests(AGENT), what="the agent asking the model")
    cancel(mention.workflow_id)
    assert wait_for_close(mention.workflow_id) == WorkflowExecutionStatus.CANCELED
    shop.wait_for_end(mention, Mention.State.FAILED)
    assert mention.outcome == "cancelled"
    assert TaskRun.objects.get().state == TaskRun.State.FAILED


def test_histories_hold_no_text_of_people_or_models_and_no_secret(shop: World):
    shop.gateway.script("the-answer-text", "another-answer")
    mention = shop.handle("the-request-text")
    shop.reply(mention, "the-follow-up-text")
    shop.wait_until_said(mention.ts, 2)
    recorded = json.dumps(json.loads(history(mention.workflow_id).to_json()))
    decoded = recorded + _payloads(json.loads(recorded))
    assert str(mention.pk) in decoded
    for secret in ("the-request", "the-answer", "another-answer", "the-follow", "pha_", "xoxb-"):
        assert secret not in decoded


def test_a_history_does_not_quote_a_provider(shop: World):
    shop.gateway.fail_next(400, "the-request-text", "the-request-text is not allowed")
    mention = shop.handle("the-request-text")
    assert mention.outcome == "ModelRefused"
    recorded = history(mention.workflow_id).to_json()
    assert "the model will not answer" in recorded
    assert "the-request-text" not in recorded + _payloads(json.loads(recorded))


def test_a_history_does_not_quote_git(world: World):
    world.add_repository("acme/gone", "file:///the-address")
    mention = world.handle()
    assert mention.outcome == "RepositoryRefused"
    recorded = history(mention.workflow_id).to_json()
    assert "the repository refuses access, or is not there" in recorded
    assert "the-address" not in recorded + _payloads(json.loads(recorded))


def _payloads(node: object) -> str:
    """Return all payloads in a history's JSON, decoded."""
    if isinstance(node, dict):
        data = node.get("data")
        own = base64.b64decode(data).decode() if isinstance(data, str) else ""
        return own + "".join(map(_payloads, node.values()))
    return "".join(map(_payloads, node)) if isinstance(node, list) else ""
