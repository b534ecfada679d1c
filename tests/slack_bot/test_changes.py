"""Edits and deletions of mentions, and messages that are not for the bot."""

import pytest

from billing.allowances.limits import set_limit
from quota.resources import AI_CREDITS, MICRO
from tests.slack_bot.conftest import captured, workflow_of
from workflows import tasks
from workflows.intake import changes
from workflows.models import CreditRequest, FollowUp, Mention


def edit(webhook, message, text: str) -> None:
    changed = {**message, "type": "message", "text": text}
    payload = captured("message_edited", message=changed)
    assert webhook.deliver(payload).status_code == 200


def delete(webhook, message) -> None:
    payload = captured("message_deleted", deleted_ts=message["ts"])
    assert webhook.deliver(payload).status_code == 200


def test_an_edited_mention_that_has_not_started_is_taken_as_edited(webhook, workspace, no_temporal):
    message = webhook.mention()
    edit(webhook, message, "<@UBOT> something else")
    assert Mention.objects.get().text == "<@UBOT> something else"


def test_a_mention_that_an_edit_turns_into_an_aside_never_starts(
    webhook, workspace, no_temporal, settings, temporal_address
):
    message = webhook.mention()
    edit(webhook, message, "<@UBOT> // never mind")
    settings.TEMPORAL_ADDRESS = temporal_address
    tasks.start_pending_mentions()
    assert Mention.objects.get().state == "stopped"
    assert webhook.slack.bot_messages("C1") == []


def test_an_edit_of_a_started_mention_changes_nothing(webhook, workspace, temporal):
    message = webhook.mention()
    edit(webhook, message, "<@UBOT> something else")
    assert Mention.objects.get().text == message["text"]


def test_a_deleted_mention_that_has_not_started_never_starts(
    webhook, workspace, no_temporal, settings, temporal_address
):
    message = webhook.mention()
    delete(webhook, message)
    settings.TEMPORAL_ADDRESS = temporal_address
    tasks.start_pending_mentions()
    assert Mention.objects.get().state == "stopped"
    assert webhook.slack.bot_messages("C1") == []


def test_a_deleted_mention_without_a_task_is_ended(webhook, workspace, temporal):
    message = webhook.mention()
    delete(webhook, message)
    mention = Mention.objects.get()
    assert (mention.state, mention.outcome) == ("stopped", "deleted before its work began")


def test_the_work_on_a_deleted_mention_goes_on(webhook, task):
    Mention.objects.update(workflow_id=task.workflow_id)
    delete(webhook, {"ts": task.thread_ts})
    assert Mention.objects.get().state == "started"


def test_a_task_that_was_made_while_the_deletion_arrived_goes_on(task):
    read_earlier = Mention.objects.get()
    read_earlier.workflow_id = ""
    changes.withdraw(read_earlier)
    assert Mention.objects.get().state == "started"


def test_a_stranger_can_neither_edit_nor_delete_a_mention(
    webhook, workspace, stranger, no_temporal
):
    message = webhook.mention()
    workspace.team_id = "T9"
    workspace.save()
    edit(webhook, message, "<@UBOT> something else")
    delete(webhook, message)
    mention = Mention.objects.get()
    assert (mention.text, mention.state) == (message["text"], "received")


@pytest.fixture
def asked(webhook, workspace, out_of_credits, temporal):
    """A refused mention whose author has asked for credits."""
    message = webhook.mention()
    CreditRequest.objects.create(mention=Mention.objects.get(), suggested_micro=MICRO)
    return message


def test_a_mention_deleted_while_it_waits_for_credits_does_not_run(
    webhook, asked, project, temporal
):
    delete(webhook, asked)
    set_limit(project.organization, AI_CREDITS, 100 * MICRO)
    tasks.wake_paused_runs()
    assert CreditRequest.objects.get().state == "dropped"
    assert not temporal.has(workflow_of(asked))


def test_a_mention_edited_while_it_waits_for_credits_runs_as_edited(webhook, asked, project):
    edit(webhook, asked, "<@UBOT> something else")
    set_limit(project.organization, AI_CREDITS, 100 * MICRO)
    tasks.wake_paused_runs()
    mention = Mention.objects.get()
    assert (mention.state, mention.text) == ("started", "<@UBOT> something else")


@pytest.mark.parametrize("text", ["<@UBOT> // only a note", "// <@UBOT> see above", "//x"])
def test_a_message_that_begins_with_two_slashes_is_ignored(webhook, task, text):
    before = Mention.objects.count()
    webhook.mention(text=text)
    webhook.reply(text, task.thread_ts)
    assert Mention.objects.count() == before
    assert not FollowUp.objects.exists()


def test_slashes_later_in_a_message_mean_nothing(webhook, workspace, temporal):
    webhook.mention(text="<@UBOT> see https://example.com // or not")
    assert Mention.objects.get().state == "started"
