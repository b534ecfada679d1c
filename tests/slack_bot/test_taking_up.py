"""Unanswered requests, and which replies take them up."""

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from billing.allowances.caps import set_cap
from billing.allowances.limits import set_limit
from coding_tasks.models import CodingTask
from quota.resources import AI_CREDITS
from tests.slack_bot.conftest import at_once, workflow_of
from workflows import closing, tasks
from workflows.intake import replies
from workflows.models import FollowUp, Mention, Notice, ThreadReply
from workflows.requests import all_that_was_asked


@pytest.fixture
def denied(webhook, workspace, out_of_credits, temporal) -> dict:
    """A mention that was denied for lack of credits, with the denial in its thread."""
    message = webhook.mention(text="<@UBOT> fix the login")
    tasks.deliver_pending_notices()
    return message


def top_up(workspace) -> None:
    set_limit(workspace.project.organization, AI_CREDITS, None)


def said(webhook) -> list[str]:
    tasks.deliver_pending_notices()
    return [each["text"] for each in webhook.slack.bot_messages("C1")]


# --- Denied --------------------------------------------------------------------------------------
def test_a_plain_reply_after_a_top_up_starts_the_whole_request(
    webhook, workspace, denied, temporal
):
    top_up(workspace)
    reply = webhook.reply("please?", denied["ts"])
    taken = Mention.objects.get(ts=reply["ts"])
    assert taken.state == "started"
    assert all_that_was_asked(taken) == "fix the login\n\nplease?"
    assert temporal.has(workflow_of(reply))
    assert len(said(webhook)) == 1


def test_replies_before_a_top_up_get_no_answer(webhook, workspace, denied, temporal):
    replied = [webhook.reply(text, denied["ts"]) for text in ("please?", "hello?", "anybody?")]
    assert len(said(webhook)) == 1
    top_up(workspace)
    ThreadReply.objects.update(received_at=timezone.now() - timedelta(minutes=1))
    tasks.match_replies()
    assert not any(temporal.has(workflow_of(each)) for each in replied)
    assert temporal.has(workflow_of(webhook.reply("now?", denied["ts"])))


def test_a_reply_is_told_once_if_the_reason_has_changed(webhook, workspace, denied, temporal):
    top_up(workspace)
    set_cap(
        workspace.project.organization,
        AI_CREDITS,
        "user",
        0,
        subject=workspace.distinct_id("U1"),
    )
    for text in ("please?", "hello?"):
        webhook.reply(text, denied["ts"])
    assert len(said(webhook)) == 2
    assert said(webhook)[1].endswith("Ask an administrator of your team to raise your share.")
    set_cap(
        workspace.project.organization,
        AI_CREDITS,
        "user",
        None,
        subject=workspace.distinct_id("U1"),
    )
    assert temporal.has(workflow_of(webhook.reply("now?", denied["ts"])))


def test_redeliveries_of_the_reply_start_one_workflow(webhook, workspace, denied, temporal):
    top_up(workspace)
    reply = webhook.reply("please?", denied["ts"])
    for _ in range(3):
        webhook.deliver(webhook.slack.event(reply, "message"))
    assert Mention.objects.count() == 2
    assert not FollowUp.objects.exists()
    assert not ThreadReply.objects.exists()


def test_an_ignored_reply_starts_nothing_when_redelivered(webhook, workspace, denied, temporal):
    reply = webhook.reply("please?", denied["ts"])
    top_up(workspace)
    webhook.deliver(webhook.slack.event(reply, "message"))
    assert not temporal.has(workflow_of(reply))


def test_a_follow_up_that_is_delivered_again_does_not_take_its_failed_request_up(
    webhook, workspace, temporal
):
    mention = webhook.mention()
    reply = webhook.reply("in the shop", mention["ts"])
    closing.close(Mention.objects.get().pk, Mention.State.FAILED, "it failed")
    webhook.deliver(webhook.slack.event(reply, "message"))
    assert Mention.objects.count() == 1
    assert FollowUp.objects.get().state == "dropped"


# --- Erased --------------------------------------------------------------------------------------
def erase() -> None:
    call_command("erase_slack_user", "T1", "U1")


@pytest.mark.parametrize("text", ["please?", "<@UBOT> please?"])
@pytest.mark.parametrize("state", ["refused", "failed", "asked"])
def test_an_erased_request_is_not_taken_up(webhook, workspace, denied, temporal, state, text):
    top_up(workspace)
    Mention.objects.update(state=state)
    erase()
    post = webhook.slack.post(text, thread_ts=denied["ts"])
    for kind in ("app_mention", "message")["<@UBOT>" not in text :]:
        webhook.deliver(webhook.slack.event(post, kind))
    begun = Mention.objects.filter(ts=post["ts"]).first()
    assert (begun is not None) == ("<@UBOT>" in text)
    if begun is not None:
        assert all_that_was_asked(begun) == "please?"


@pytest.mark.parametrize("was_for", ["nobody", "a task"])
def test_an_erased_reply_has_no_effect_when_redelivered(
    webhook, workspace, temporal, slack, was_for
):
    mention = slack.post("<@UBOT> fix it")
    if was_for == "a task":
        webhook.deliver(slack.event(mention))
    reply = webhook.reply("private words", mention["ts"])
    erase()
    webhook.deliver(slack.event(reply, "message"))
    webhook.deliver(slack.event(mention))
    tasks.match_replies()
    for model in (ThreadReply, FollowUp):
        assert not model.objects.filter(text="private words").exists()
    assert not FollowUp.objects.filter(state__in=FollowUp.WAITING).exists()


def test_a_reply_erased_while_a_sweep_decides_has_no_effect(webhook, workspace, denied, temporal):
    reply = webhook.reply("please?", denied["ts"])
    found = ThreadReply.objects.select_related("workspace__project").get(ts=reply["ts"])
    erase()
    Mention.objects.update(text="<@UBOT> fix it", state="failed")
    top_up(workspace)
    assert replies.decide(found) is None


def test_a_second_reply_is_a_follow_up_of_the_first(webhook, workspace, denied, temporal):
    top_up(workspace)
    first = webhook.reply("please?", denied["ts"])
    webhook.reply("in the shop", denied["ts"])
    assert FollowUp.objects.get().workflow_id == workflow_of(first)
    assert Mention.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_concurrent_copies_and_replies_start_one_workflow(webhook, workspace, denied, temporal):
    top_up(workspace)
    posts = [webhook.slack.post(f"please {number}?", thread_ts=denied["ts"]) for number in range(3)]
    requests = [
        webhook.slack.signed("/slack/events/", webhook.slack.event(each, "message"))
        for each in posts * 4
    ]

    assert set(at_once(requests)) == {200}
    ThreadReply.objects.update(received_at=timezone.now() - timedelta(minutes=1))
    tasks.match_replies()
    tasks.start_pending_mentions()
    started = [each for each in posts if temporal.has(workflow_of(each))]
    assert len(started) == 1
    assert Mention.objects.filter(takes_up__ts=denied["ts"]).count() == 1


def test_a_mention_in_the_thread_takes_the_request_up_too(webhook, workspace, denied, temporal):
    top_up(workspace)
    again = webhook.mention(text="<@UBOT> please?", thread_ts=denied["ts"])
    mention = Mention.objects.get(ts=again["ts"])
    assert all_that_was_asked(mention) == "fix the login\n\nplease?"
    assert mention.state == "started"


def test_a_mention_without_a_text_takes_the_request_up_too(webhook, workspace, denied, temporal):
    top_up(workspace)
    again = webhook.mention(text="<@UBOT>", thread_ts=denied["ts"])
    assert temporal.has(workflow_of(again))
    assert all_that_was_asked(Mention.objects.get(ts=again["ts"])) == "fix the login"


def test_a_request_denied_twice_is_taken_up_with_all_its_texts(
    webhook, workspace, denied, temporal
):
    webhook.mention(text="<@UBOT> and the logout", thread_ts=denied["ts"])
    top_up(workspace)
    reply = webhook.reply("now?", denied["ts"])
    assert all_that_was_asked(Mention.objects.get(ts=reply["ts"])) == (
        "fix the login\n\nand the logout\n\nnow?"
    )


def test_another_persons_reply_takes_nothing_up(webhook, workspace, denied, temporal):
    top_up(workspace)
    reply = webhook.reply("please?", denied["ts"], user="U2")
    assert not temporal.has(workflow_of(reply))
    assert len(said(webhook)) == 1


def test_an_old_request_is_not_taken_up_and_its_author_is_told(
    webhook, workspace, denied, temporal
):
    top_up(workspace)
    Mention.objects.update(received_at=timezone.now() - replies.TAKEN_UP_WITHIN)
    reply = webhook.reply("please?", denied["ts"])
    assert not temporal.has(workflow_of(reply))
    assert Notice.objects.filter(kind="hint").count() == 1


# --- Ended otherwise -----------------------------------------------------------------------------
def ended(state: str, outcome: str = "") -> None:
    Mention.objects.update(state=state, outcome=outcome)
    CodingTask.objects.update(state=CodingTask.State.DONE)


@pytest.mark.parametrize(
    "outcome", ["ModelFailed", "no repository was chosen", "out of credits", "no repository"]
)
def test_a_request_that_failed_is_taken_up_by_a_reply(webhook, task, temporal, outcome):
    ended("failed", outcome)
    assert temporal.has(workflow_of(webhook.reply("try again", task.thread_ts)))


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("answered", ""),
        ("stopped", ""),
        ("forwarded", ""),
        ("refused", "no access: not_a_member"),
        ("refused", "another user's task"),
    ],
)
def test_the_author_alone_is_told_once_how_to_go_on(webhook, task, temporal, state, outcome):
    ended(state, outcome)
    for text in ("thanks", "and the tests?"):
        assert not temporal.has(workflow_of(webhook.reply(text, task.thread_ts)))
    assert said(webhook) == []
    [hint] = webhook.slack.ephemeral_messages("C1")
    assert hint["visible_to"] == "U1"
    assert "Mention Tollgate to go on." in hint["text"]
    assert not FollowUp.objects.exists()


def test_an_author_who_got_access_asks_again_by_a_mention(webhook, task, temporal):
    ended("refused", "no access: not_a_member")
    again = webhook.mention(text="<@UBOT>", thread_ts=task.thread_ts)
    assert temporal.has(workflow_of(again))


# --- Without a text ------------------------------------------------------------------------------
BARE = ["<@UBOT>", "  <@UBOT>\n", "<@UBOT> :wave::skin-tone-2:", "<@UBOT> 👍", "*<@UBOT>* ?!", "…"]


@pytest.mark.parametrize("text", BARE)
def test_a_mention_without_a_text_is_asked_what_to_do_and_starts_nothing(
    webhook, workspace, temporal, text
):
    message = webhook.slack.post(text)
    for kind in ("app_mention", "message", "app_mention"):
        webhook.deliver(webhook.slack.event(message, kind))
    assert Mention.objects.get().state == "asked"
    assert not temporal.has(workflow_of(message))
    assert said(webhook) == ["<@U1>, what should I do? Reply here, and I will start."]


def test_the_reply_to_the_question_starts_the_work_once(webhook, workspace, temporal):
    question = webhook.mention(text="<@UBOT>")
    reply = webhook.reply("fix the login", question["ts"])
    webhook.deliver(webhook.slack.event(reply, "message"))
    assert temporal.has(workflow_of(reply))
    assert all_that_was_asked(Mention.objects.get(ts=reply["ts"])) == "fix the login"
    assert Mention.objects.count() == 2
    assert not FollowUp.objects.exists()


def test_a_reply_that_comes_before_its_bare_mention_is_what_it_asks_for(
    webhook, workspace, temporal, slack
):
    mention = slack.post("<@UBOT>")
    reply = slack.post("fix the login", thread_ts=mention["ts"])
    webhook.deliver(slack.event(reply, "message"))
    webhook.deliver(slack.event(mention))
    assert temporal.has(workflow_of(reply))
    assert not temporal.has(workflow_of(mention))
    assert said(webhook) == []


def test_a_bare_mention_without_credits_is_denied_and_taken_up_later(
    webhook, workspace, out_of_credits, temporal
):
    mention = webhook.mention(text="<@UBOT>")
    assert said(webhook)[0].startswith("Your team has used its monthly")
    top_up(workspace)
    assert temporal.has(workflow_of(webhook.reply("fix the login", mention["ts"])))


def test_a_second_mention_without_a_text_is_asked_again_and_starts_nothing(
    webhook, workspace, temporal
):
    first = webhook.mention(text="<@UBOT>")
    again = webhook.mention(text="<@UBOT> :wave:", thread_ts=first["ts"])
    assert not temporal.has(workflow_of(again))
    assert len(said(webhook)) == 2
    reply = webhook.reply("fix the login", first["ts"])
    assert temporal.has(workflow_of(reply))
    assert all_that_was_asked(Mention.objects.get(ts=reply["ts"])) == "fix the login"


@pytest.mark.parametrize("text", ["👍", "?", ":wave:", "<@U2>"])
def test_a_reply_without_a_text_is_no_answer_to_the_question(webhook, workspace, temporal, text):
    question = webhook.mention(text="<@UBOT>")
    reply = webhook.reply(text, question["ts"])
    assert not temporal.has(workflow_of(reply))
    assert len(said(webhook)) == 1
    assert temporal.has(workflow_of(webhook.reply("fix the login", question["ts"])))


def test_a_reply_without_a_text_that_comes_first_does_not_spare_the_question(
    webhook, workspace, temporal, slack, ts
):
    mention = slack.post("<@UBOT>", ts=ts)
    webhook.reply("👀", ts)
    webhook.deliver(slack.event(mention))
    assert len(said(webhook)) == 1


def test_a_bare_mention_in_a_running_task_is_asked_and_its_reply_is_a_follow_up(
    webhook, task, temporal
):
    webhook.mention(text="<@UBOT>", thread_ts=task.thread_ts)
    assert temporal.signals(task.workflow_id) == []
    webhook.reply("and the tests", task.thread_ts)
    assert temporal.signals(task.workflow_id) == ["follow_up"]
    assert len(said(webhook)) == 1


def test_a_mention_with_a_word_is_not_bare(webhook, workspace, temporal):
    assert temporal.has(workflow_of(webhook.mention(text="<@UBOT> 修理")))
