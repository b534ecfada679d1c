"""Replies that came before their mention: when the thread is read for them, and how far."""

from datetime import UTC, datetime, timedelta

import pytest

from coding_tasks.models import CodingTask
from tests.workflows.world import World
from workflows import overtaken
from workflows.models import FollowUp, Mention


def heard(world: World, after: timedelta) -> Mention:
    """Record a mention so long after it was written, and the task that it led to."""
    mention = world.mention()
    mention.received_at = datetime.fromtimestamp(float(mention.ts), UTC) + after
    mention.save()
    CodingTask.objects.create(
        project=world.project,
        repository=world.add_repository("acme/shop", "https://h/shop"),
        workspace=world.workspace,
        channel_id="C1",
        thread_ts=mention.ts,
        owner_slack_user_id=mention.user_id,
        workflow_id="the workflow",
    )
    return mention


def say(world: World, mention: Mention, *texts: str, **fields: str) -> None:
    for text in texts:
        world.slack.post(text, thread_ts=mention.ts, **fields)


def kept() -> list[str]:
    return list(FollowUp.objects.order_by("ts").values_list("text", flat=True))


@pytest.mark.parametrize(("seconds", "calls"), [(-30, 0), (0, 0), (9, 0), (11, 1), (300, 1)])
def test_only_the_thread_of_a_mention_that_was_heard_late_is_read(world: World, seconds, calls):
    overtaken.hear(heard(world, timedelta(seconds=seconds)))
    assert len(world.slack.calls("conversations.replies")) == calls


def test_only_replies_of_its_author_that_are_no_mentions_are_kept_once(world: World):
    mention = heard(world, timedelta(minutes=1))
    say(world, mention, "one", "<@UBOT> a mention", "<@UBOT2> look", "two")
    say(world, mention, "by a bot", bot_id="B9")
    say(world, mention, "by another", user="U2")
    overtaken.hear(mention)
    overtaken.hear(mention)
    assert kept() == ["one", "<@UBOT2> look", "two"]


def test_a_long_thread_is_read_up_to_a_bound(world: World, monkeypatch):
    monkeypatch.setattr(overtaken, "_PAGE", 2)
    mention = heard(world, timedelta(minutes=1))
    say(world, mention, *map(str, range(8)))
    overtaken.hear(mention)
    assert kept() == ["0", "1", "2", "3", "4", "5"]


def test_a_thread_that_cannot_be_read_is_warned_of(world: World, caplog):
    mention = heard(world, timedelta(minutes=1))
    world.slack.fail_next("conversations.replies")
    overtaken.hear(mention)
    [warning] = [each for each in caplog.records if each.name == "workflows.overtaken"]
    assert warning.levelname == "WARNING"
    assert str(mention.pk) in warning.getMessage()
    assert "ratelimited" in warning.getMessage()


def test_what_was_read_before_slack_failed_is_kept(world: World, monkeypatch):
    monkeypatch.setattr(overtaken, "_PAGE", 2)
    mention = heard(world, timedelta(minutes=1))
    say(world, mention, "one", "two", "three")
    record = overtaken._record

    def record_then_fail(*arguments: object) -> None:
        record(*arguments)
        world.slack.fail_next("conversations.replies")

    monkeypatch.setattr(overtaken, "_record", record_then_fail)
    overtaken.hear(mention)
    assert kept() == ["one", "two"]
