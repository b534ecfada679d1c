"""The work of participants in another person's task: run, attributed, gated, removed."""

import pytest

from billing.allowances.caps import set_cap
from billing.ingestion import ledger
from coding_tasks.models import CodingTask, TaskRun
from projects.models import OAuthAccessToken
from quota.resources import AI_CREDITS, MICRO
from tests.billing.world import usage_event
from tests.conftest import wait_until
from tests.workflows.fake_gateway import AGENT
from tests.workflows.world import World
from workflows import closing, erasure, participants, tasks
from workflows.intake import follow_ups, mentions
from workflows.models import ERASED, FollowUp, Mention, Notice

pytestmark = pytest.mark.usefixtures("worker")


def let_join(shop: World, user: str = "U2") -> None:
    task = CodingTask.objects.select_related("workspace").get()
    for each in participants.let_join(task, user, "U1", decider="<@U1>") or []:
        each.refresh_from_db()
        mentions.admit_or_keep(each)
    tasks.deliver_pending_notices()


def reply_of(shop: World, mention: Mention, text: str, user: str = "U2") -> FollowUp:
    mention.user_id = user
    follow_up = shop.posted_reply(mention, text)
    follow_up.workflow_id = CodingTask.objects.get().workflow_id
    follow_up.save()
    follow_ups.signal(follow_up)
    return follow_up


def test_a_participant_is_answered_by_the_task_and_their_usage_counts_as_theirs(shop: World):
    mention = shop.handle()
    let_join(shop)
    shop.gateway.hold_next()
    follow_up = reply_of(shop, mention, "and what does it sell?")
    wait_until(lambda: len(shop.gateway.requests(AGENT)) == 2, what="the agent asking the model")
    run = TaskRun.objects.get(message_ts=follow_up.ts)
    assert OAuthAccessToken.objects.get(task_run_id=run.pk).distinct_id == "slack:T1:U2"
    shop.gateway.release()
    shop.wait_until_said(mention.ts, 3)
    assert (run.asked_by, TaskRun.objects.get(message_ts=mention.ts).asked_by) == ("U2", "U1")
    assert Notice.objects.get(key=f"answer:{run.pk}").user_id == "U2"


def test_a_mention_that_was_refused_by_the_workflow_is_answered_once_its_author_may_join(
    shop: World,
):
    mention = shop.handle()
    theirs = shop.handle("do this instead", thread_ts=mention.ts, user="U2")
    assert theirs.state == Mention.State.REFUSED
    let_join(shop)
    shop.wait_for_end(theirs, Mention.State.FORWARDED)
    wait_until(lambda: len(shop.gateway.requests(AGENT)) == 2, what="the second answer")
    asked = shop.gateway.requests(AGENT)[1].body["messages"][-1]["content"]
    assert asked == "do this instead"


def test_a_mention_that_is_being_refused_while_its_author_joins_is_decided_again(shop: World):
    mention = shop.handle()
    theirs = shop.mention("do this instead", thread_ts=mention.ts, user="U2")
    Mention.objects.filter(pk=theirs.pk).update(state=Mention.State.STARTED)
    let_join(shop)
    assert not closing.close_as_anothers(theirs.pk)
    theirs.refresh_from_db()
    assert theirs.state == Mention.State.RECEIVED
    mentions.admit(theirs)
    shop.wait_for_end(theirs, Mention.State.FORWARDED)


def test_a_stranger_stays_refused_when_their_workflow_closes_their_mention(shop: World):
    mention = shop.handle()
    theirs = shop.mention("do this instead", thread_ts=mention.ts, user="U3")
    let_join(shop)
    assert closing.close_as_anothers(theirs.pk)
    theirs.refresh_from_db()
    assert (theirs.state, theirs.outcome) == (Mention.State.REFUSED, "another user's task")


def test_their_run_stops_at_their_own_cap_and_the_owners_goes_on(shop: World):
    mention = shop.handle()
    let_join(shop)
    set_cap(shop.project.organization, AI_CREDITS, "user", 12 * MICRO)
    ledger.book([usage_event(shop.project, distinct_id="slack:T1:U2")])
    theirs = reply_of(shop, mention, "and?")
    shop.wait_for_follow_up(theirs, FollowUp.State.REFUSED)
    mine = reply_of(shop, mention, "and?", user="U1")
    shop.wait_for_follow_up(mine, FollowUp.State.HANDLED)
    assert "You have used your share" in shop.wait_until_said(mention.ts, 3)[2]
    shop.wait_until_said(mention.ts, 4)
    assert len(shop.gateway.requests(AGENT)) == 2


def test_a_message_of_a_participant_who_was_removed_meanwhile_is_not_carried_out(shop: World):
    mention = shop.handle()
    let_join(shop)
    shop.gateway.hold_next()
    busy = reply_of(shop, mention, "first", user="U1")
    shop.wait_for_follow_up(busy, FollowUp.State.HANDLED)
    waiting = reply_of(shop, mention, "then this")
    task = CodingTask.objects.select_related("workspace").get()
    participants.end_participation(task, "U2", "U1")
    shop.gateway.release()
    shop.wait_for_follow_up(waiting, FollowUp.State.DROPPED)
    last = reply_of(shop, mention, "the last one", user="U1")
    shop.wait_for_follow_up(last, FollowUp.State.HANDLED)
    requests = [run.request for run in TaskRun.objects.order_by("created_at")]
    assert requests == ["what is this?", "first", "the last one"]


def test_erasing_a_participant_erases_their_turns_and_leaves_the_owners(shop: World):
    mention = shop.handle()
    let_join(shop)
    theirs = reply_of(shop, mention, "my secret")
    shop.wait_until_said(mention.ts, 3)
    erased = erasure.erase("T1", "U2")
    assert erased.runs == 1
    assert TaskRun.objects.get(message_ts=theirs.ts).request == ERASED
    own = TaskRun.objects.get(message_ts=mention.ts)
    assert own.request == "what is this?"
    assert CodingTask.objects.get().state == CodingTask.State.STOPPED
    assert not CodingTask.objects.get().accepts("U2")
