"""A reply that arrives before, with or after its mention is always one follow-up."""

import itertools
import random
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from slack_bot import inbox
from tests.slack_bot.conftest import at_once, workflow_of
from workflows import tasks
from workflows.intake import mentions, replies
from workflows.models import FollowUp, Mention, ThreadReply


@pytest.fixture
def posts(slack, ts) -> tuple[dict, dict]:
    """A mention and its author's reply, written but not delivered."""
    mention = slack.post("<@UBOT> why does the build fail?", ts=ts)
    return mention, slack.post("in the shop, please", thread_ts=mention["ts"])


def sweep() -> None:
    """Let time pass until every sweep has run."""
    long_ago = timezone.now() - timedelta(minutes=1)
    for _ in range(2):
        ThreadReply.objects.update(received_at=long_ago)
        FollowUp.objects.update(received_at=long_ago)
        tasks.match_replies()
        tasks.start_pending_mentions()
        tasks.deliver_pending_follow_ups()


def assert_one_follow_up(temporal, mention: dict) -> None:
    sweep()
    follow_up = FollowUp.objects.get()
    assert (follow_up.text, follow_up.state) == ("in the shop, please", "signalled")
    assert temporal.signals(workflow_of(mention)).count("follow_up") == 1
    assert Mention.objects.get().state == "started"
    assert not ThreadReply.objects.exists()


def after(monkeypatch, module, name: str, action) -> None:
    """Perform the action once, right after the next call of a function."""
    original = getattr(module, name)
    waiting = [action]

    def interrupted(*arguments, **fields):
        result = original(*arguments, **fields)
        if waiting:
            waiting.pop()()
        return result

    monkeypatch.setattr(module, name, interrupted)


@pytest.mark.parametrize("order", ["mention first", "reply first"])
def test_a_reply_handled_before_or_after_its_mention_is_one_follow_up(
    webhook, workspace, temporal, posts, order
):
    mention, reply = posts
    events = [webhook.slack.event(mention), webhook.slack.event(reply, "message")]
    for each in events if order == "mention first" else reversed(events):
        webhook.deliver(each)
    assert_one_follow_up(temporal, mention)


@pytest.mark.parametrize(
    ("module", "moment"),
    [(replies, "keep"), (replies, "_latest_request"), (replies, "_may_be_matched_soon")],
)
def test_the_mention_is_handled_while_its_reply_is_being_handled(
    webhook, workspace, temporal, posts, monkeypatch, module, moment
):
    mention, reply = posts
    after(monkeypatch, module, moment, lambda: webhook.deliver(webhook.slack.event(mention)))
    webhook.deliver(webhook.slack.event(reply, "message"))
    assert_one_follow_up(temporal, mention)


@pytest.mark.parametrize(
    ("module", "moment"),
    [
        (inbox, "_record"),
        (replies, "decide_for"),
        (replies, "take_up_earlier"),
        (mentions, "_decide_request"),
    ],
)
def test_the_reply_is_handled_while_its_mention_is_being_handled(
    webhook, workspace, temporal, posts, monkeypatch, module, moment
):
    mention, reply = posts
    after(
        monkeypatch, module, moment, lambda: webhook.deliver(webhook.slack.event(reply, "message"))
    )
    webhook.deliver(webhook.slack.event(mention))
    assert_one_follow_up(temporal, mention)


def test_a_reply_whose_process_died_is_decided_by_a_sweep(
    webhook, workspace, temporal, posts, monkeypatch
):
    mention, reply = posts
    webhook.deliver(webhook.slack.event(mention))

    def dies(_reply):
        raise OperationalError("the database is down")

    with monkeypatch.context() as patch:
        patch.setattr(replies, "decide", dies)
        assert webhook.deliver(webhook.slack.event(reply, "message")).status_code == 200
    assert not FollowUp.objects.exists()
    assert_one_follow_up(temporal, mention)


def test_a_mention_whose_process_died_finds_the_reply_that_came_first(
    webhook, workspace, temporal, posts, monkeypatch
):
    mention, reply = posts
    webhook.deliver(webhook.slack.event(reply, "message"))

    def dies(_mention):
        raise OperationalError("the database is down")

    with monkeypatch.context() as patch:
        patch.setattr(replies, "decide_for", dies)
        webhook.deliver(webhook.slack.event(mention))
    assert_one_follow_up(temporal, mention)


def test_redeliveries_in_any_order_are_one_follow_up(webhook, workspace, temporal, posts):
    mention, reply = posts
    events = [
        webhook.slack.event(mention),
        webhook.slack.event(mention, "message"),
        webhook.slack.event(reply, "message"),
        webhook.slack.event(reply, "message"),
    ]
    for each in random.Random(7).sample(events * 2, 8):
        webhook.deliver(each)
    assert_one_follow_up(temporal, mention)


@pytest.mark.parametrize("seed", range(5))
def test_replies_are_handled_in_the_order_they_were_written(
    webhook, workspace, temporal, slack, ts, seed
):
    mention = slack.post("<@UBOT> why does the build fail?", ts=ts)
    written = [slack.post(f"reply {number}", thread_ts=ts) for number in range(4)]
    events = [slack.event(mention), *(slack.event(each, "message") for each in written)]
    for each in random.Random(seed).sample(events, len(events)):
        webhook.deliver(each)
    sweep()
    heard = FollowUp.objects.order_by("ts").values_list("text", "state")
    assert list(heard) == [(f"reply {number}", "signalled") for number in range(4)]


# --- Replies that are not for the bot ------------------------------------------------------------
def test_an_unrelated_reply_is_deleted_after_a_quarter_of_an_hour(webhook, workspace):
    root = webhook.slack.post("lunch?", user="U2")
    webhook.reply("yes", root["ts"])
    assert ThreadReply.objects.get().decided_at is not None
    ThreadReply.objects.update(received_at=timezone.now() - timedelta(minutes=14))
    tasks.match_replies()
    assert ThreadReply.objects.exists()
    ThreadReply.objects.update(received_at=timezone.now() - replies.KEPT_FOR)
    tasks.match_replies()
    assert not ThreadReply.objects.exists()


def test_an_undecided_reply_is_kept_while_no_sweep_runs(
    webhook, workspace, temporal, posts, monkeypatch
):
    """After an outage of Celery, the first sweep decides about the reply before deleting it."""
    mention, reply = posts
    webhook.deliver(webhook.slack.event(mention))

    def fails(_reply):
        raise OperationalError("the database is down")

    with monkeypatch.context() as patch:
        patch.setattr(replies, "decide", fails)
        webhook.deliver(webhook.slack.event(reply, "message"))
        ThreadReply.objects.update(received_at=timezone.now() - timedelta(hours=2))
        tasks.match_replies()
    assert_one_follow_up(temporal, mention)


def test_an_undecided_reply_is_deleted_after_a_day(webhook, workspace, posts, monkeypatch):
    _, reply = posts

    def fails(_reply):
        raise OperationalError("the database is down")

    monkeypatch.setattr(replies, "decide", fails)
    webhook.deliver(webhook.slack.event(reply, "message"))
    ThreadReply.objects.update(received_at=timezone.now() - replies.UNDECIDED_FOR)
    tasks.match_replies()
    assert not ThreadReply.objects.exists()


def test_a_reply_that_came_before_a_mention_without_text_survives_its_process(
    webhook, workspace, temporal, slack, ts, monkeypatch
):
    mention = slack.post("<@UBOT>", ts=ts)
    reply = slack.post("why does the build fail?", thread_ts=ts)
    webhook.deliver(slack.event(reply, "message"))
    asking = mentions._ask

    def dies_afterwards(about):
        asking(about)
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(mentions, "_ask", dies_afterwards)
        webhook.deliver(slack.event(mention))
    sweep()
    assert temporal.has(workflow_of(reply))


def test_external_authors_and_posts_outside_threads_are_not_recorded(webhook, workspace):
    root = webhook.slack.post("lunch?")
    webhook.deliver(webhook.slack.event(root, "message"))
    reply = webhook.slack.post("yes", thread_ts=root["ts"], user="U9", user_team="T9")
    webhook.deliver(webhook.slack.event(reply, "message"))
    assert not ThreadReply.objects.exists()


def test_another_persons_reply_is_not_mistaken_for_the_authors(
    webhook, workspace, temporal, slack, ts
):
    mention = slack.post("<@UBOT> why does the build fail?", ts=ts)
    other = slack.post("me too", thread_ts=ts, user="U2")
    webhook.deliver(slack.event(other, "message"))
    webhook.deliver(slack.event(mention))
    sweep()
    assert not FollowUp.objects.exists()


# --- Concurrency ---------------------------------------------------------------------------------
def deliver_at_once(webhook, events: list[dict], jitter: random.Random) -> None:
    """Deliver each event on its own thread. The threads begin in any order."""
    requests = [webhook.slack.signed("/slack/events/", each) for each in events]
    jitter.shuffle(requests)

    assert set(at_once(requests)) == {200}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("seed", range(3))
def test_concurrent_mentions_and_replies_make_one_start_and_one_follow_up_each(
    webhook, workspace, temporal, slack, seed
):
    jitter = random.Random(seed)
    mentions = [slack.post(f"<@UBOT> build {number}?") for number in range(4)]
    events = list(
        itertools.chain.from_iterable(
            (
                slack.event(mention),
                slack.event(mention, "message"),
                slack.event(reply := slack.post("please", thread_ts=mention["ts"]), "message"),
                slack.event(reply, "message"),
            )
            for mention in mentions
        )
    )
    deliver_at_once(webhook, events, jitter)
    sweep()
    connection.close()
    assert Mention.objects.filter(state="started").count() == len(mentions)
    heard = FollowUp.objects.values_list("thread_ts", "state")
    assert sorted(heard) == sorted((each["ts"], "signalled") for each in mentions)
    for mention in mentions:
        assert temporal.signals(workflow_of(mention)).count("follow_up") == 1
    assert not ThreadReply.objects.exists()
