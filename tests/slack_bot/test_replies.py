"""Replies in the thread of a running task: only the owner's reach its workflow."""

from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from billing.allowances.limits import set_limit
from coding_tasks.models import CodingTask
from projects.models import SlackWorkspace
from quota.resources import AI_CREDITS
from tests.slack_bot.conftest import captured, workflow_of
from workflows import closing, tasks
from workflows.intake import follow_ups
from workflows.mention_types import workflow_id
from workflows.models import FollowUp, Mention, Notice, ThreadReply
from workflows.temporal import client


@pytest.fixture
def exhausted(task) -> None:
    """The credits run out while the task runs."""
    set_limit(task.project.organization, AI_CREDITS, 0)


# --- The owner -----------------------------------------------------------------------------------
@pytest.mark.case("S24")
def test_redelivering_the_owners_reply_makes_no_second_follow_up(webhook, task, temporal):
    reply = webhook.reply("and the tests?", task.thread_ts)
    assert webhook.deliver(webhook.slack.event(reply, "message")).status_code == 200
    follow_up = FollowUp.objects.get()
    assert (follow_up.text, follow_up.state) == ("and the tests?", "signalled")
    assert not follow_up.addressed
    assert temporal.signals(task.workflow_id) == ["follow_up"]
    assert webhook.slack.calls() == []


@pytest.mark.parametrize("order", [("app_mention", "message"), ("message", "app_mention")])
def test_a_reply_that_names_the_bot_is_one_follow_up_and_no_new_workflow(
    webhook, task, temporal, order
):
    message = webhook.slack.post("<@UBOT> and the tests?", thread_ts=task.thread_ts)
    for kind in order:
        webhook.deliver(webhook.slack.event(message, kind))
    assert FollowUp.objects.get().addressed
    assert temporal.signals(task.workflow_id) == ["follow_up"]
    assert Mention.objects.get(ts=message["ts"]).state == "forwarded"
    assert not temporal.has(workflow_of(message))


@pytest.mark.case("S25")
@pytest.mark.parametrize(
    "case", ["file_shared_in_a_thread", "thread_reply_also_sent_to_the_channel"]
)
def test_files_and_replies_sent_to_the_channel_too_are_forwarded(webhook, task, temporal, case):
    webhook.deliver(captured(case, thread_ts=task.thread_ts))
    assert FollowUp.objects.get().state == "signalled"
    assert temporal.signals(task.workflow_id) == ["follow_up"]


@pytest.mark.case("S25")
@pytest.mark.parametrize(
    "case",
    ["reply_in_a_thread", "file_shared_in_a_thread", "thread_reply_also_sent_to_the_channel"],
)
def test_replies_in_other_threads_are_not_forwarded(webhook, task, temporal, case):
    webhook.deliver(captured(case))
    assert not FollowUp.objects.exists()
    assert temporal.signals(task.workflow_id) == []


def test_a_reply_after_the_task_has_ended_is_not_for_the_bot(webhook, task):
    Mention.objects.update(state=Mention.State.ANSWERED)
    CodingTask.objects.update(state=CodingTask.State.DONE)
    webhook.reply("thanks", task.thread_ts)
    assert not FollowUp.objects.exists()


def test_a_mention_after_the_task_has_ended_starts_anew(webhook, task, temporal):
    CodingTask.objects.update(state=CodingTask.State.DONE)
    message = webhook.mention(thread_ts=task.thread_ts)
    assert temporal.has(workflow_of(message))


def test_the_same_thread_of_another_organizations_workspace_is_another_thread(
    webhook, task, stranger, temporal
):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    payload = captured("reply_in_a_thread", thread_ts=task.thread_ts)
    payload["authorizations"][0]["team_id"] = "T2"
    webhook.deliver(payload)
    assert not FollowUp.objects.exists()


def test_a_mention_is_not_handed_to_a_task_that_took_the_threads_place_meanwhile(
    webhook, task, temporal
):
    webhook.deliver(captured("mention_in_a_thread"))
    mention = Mention.objects.get(ts="100.3")
    CodingTask.objects.update(state=CodingTask.State.DONE)
    CodingTask.objects.create(
        project=task.project,
        repository=task.repository,
        workspace=task.workspace,
        channel_id="C1",
        thread_ts=mention.thread_ts,
        owner_slack_user_id="U2",
        title="Another",
        workflow_id="another",
    )
    assert not follow_ups.forward(mention, task)
    assert not FollowUp.objects.exists()


# --- Not written by the owner --------------------------------------------------------------------
@pytest.mark.case("S22")
@pytest.mark.parametrize("kind", ["app_mention", "message"])
@pytest.mark.parametrize(
    "mark",
    [
        {"bot_id": "B9"},
        {"bot_profile": {"id": "B9", "name": "another"}},
        {"app_id": "A9"},
        {"subtype": "bot_message"},
        {"user": "USLACKBOT"},
        {"user": "UBOT"},
    ],
)
def test_a_hundred_posts_of_bots_in_the_thread_have_no_effects(webhook, task, temporal, kind, mark):
    before = Mention.objects.count()
    message = webhook.slack.post("<@UBOT> go on", thread_ts=task.thread_ts)
    for number in range(100):
        post = message | mark | {"ts": f"{int(float(task.thread_ts)) + 1}.{number:06}"}
        assert webhook.deliver(webhook.slack.event(post, kind)).status_code == 200
    assert Mention.objects.count() == before
    assert not FollowUp.objects.exists()
    assert not ThreadReply.objects.exists()
    assert not Notice.objects.exists()
    assert temporal.signals(task.workflow_id) == []
    assert webhook.slack.calls() == []


@pytest.mark.case("S23")
def test_edits_deletions_and_joins_in_the_thread_signal_nothing(webhook, task, temporal):
    reply = webhook.reply("and the tests?", task.thread_ts)
    edited = reply | {"type": "message", "text": "<@UBOT> and the docs?"}
    for payload in (
        captured("message_edited", message=edited),
        captured("mention_fired_by_an_edit", ts=reply["ts"], thread_ts=task.thread_ts),
        captured("message_deleted", deleted_ts=reply["ts"]),
        captured("channel_joined", thread_ts=task.thread_ts),
        captured("member_joined_channel"),
    ):
        assert webhook.deliver(payload).status_code == 200
    assert temporal.signals(task.workflow_id) == ["follow_up"]
    assert FollowUp.objects.get().text == "and the tests?"
    assert Mention.objects.count() == 1
    assert webhook.slack.calls() == []


# --- Before the task exists ----------------------------------------------------------------------
def test_the_authors_reply_to_a_mention_that_has_no_task_yet_is_one_follow_up(
    webhook, workspace, temporal
):
    mention = webhook.mention()
    reply = webhook.reply("in the shop, please", mention["ts"])
    webhook.deliver(webhook.slack.event(reply, "message"))
    follow_up = FollowUp.objects.get()
    assert (follow_up.text, follow_up.state) == ("in the shop, please", "signalled")
    assert temporal.signals(workflow_of(mention)) == ["follow_up"]
    assert webhook.slack.calls() == []


def test_replies_of_others_and_in_other_threads_do_not_count_before_the_task(
    webhook, workspace, stranger, temporal
):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    mention = webhook.mention()
    webhook.reply("me too", mention["ts"], user="U2")
    webhook.reply("lunch?", webhook.slack.post("hi")["ts"])
    elsewhere = captured("reply_in_a_thread", thread_ts=mention["ts"], ts=_after(mention))
    elsewhere["authorizations"][0]["team_id"] = "T2"
    webhook.deliver(elsewhere)
    assert not FollowUp.objects.exists()
    assert temporal.signals(workflow_of(mention)) == []


def test_replies_from_before_the_mention_are_ignored(webhook, workspace, temporal):
    root = webhook.slack.post("good morning")
    before = webhook.slack.post("anybody?", thread_ts=root["ts"])
    webhook.mention(thread_ts=root["ts"])
    webhook.deliver(webhook.slack.event(before, "message"))
    assert not FollowUp.objects.exists()


def test_a_reply_to_a_mention_that_waits_for_temporal_waits_with_it(
    webhook, workspace, settings, monkeypatch, temporal_address, temporal
):
    with monkeypatch.context() as patch:
        patch.setattr(client, "_connection", None)
        settings.TEMPORAL_ADDRESS = "127.0.0.1:1"
        mention = webhook.mention()
        webhook.reply("in the shop, please", mention["ts"])
    settings.TEMPORAL_ADDRESS = temporal_address
    FollowUp.objects.update(received_at=timezone.now() - timedelta(minutes=1))
    tasks.deliver_pending_follow_ups()
    assert FollowUp.objects.get().state == "received"
    tasks.start_pending_mentions()
    tasks.deliver_pending_follow_ups()
    assert FollowUp.objects.get().state == "signalled"
    assert temporal.signals(workflow_of(mention)) == ["follow_up"]


def test_a_reply_to_a_mention_that_was_refused_begins_nothing(
    webhook, workspace, out_of_credits, temporal
):
    mention = webhook.mention()
    webhook.reply("please?", mention["ts"])
    tasks.deliver_pending_notices()
    assert not FollowUp.objects.exists()
    assert len(webhook.slack.bot_messages("C1")) == 1
    assert not temporal.has(workflow_of(mention))


def test_a_reply_waits_in_silence_when_the_credits_end_and_is_dropped_with_its_mention(
    webhook, workspace, temporal
):
    message = webhook.mention()
    set_limit(workspace.project.organization, AI_CREDITS, 0)
    webhook.reply("in the shop, please", message["ts"])
    assert not Notice.objects.exists()
    assert closing.close(Mention.objects.get().pk, Mention.State.REFUSED, "out of credits")
    dropped = FollowUp.objects.get()
    assert dropped.state == "dropped"
    assert dropped.outcome == "its mention made no task: out of credits"


def test_a_reply_that_waits_for_a_mention_goes_with_it_to_the_task_that_got_the_thread(
    webhook, task, temporal
):
    Mention.objects.update(state=Mention.State.ANSWERED)
    CodingTask.objects.update(state=CodingTask.State.DONE)
    message = webhook.mention(text="<@UBOT> and this", thread_ts=task.thread_ts)
    reply = webhook.reply("the one in the shop", task.thread_ts)
    CodingTask.objects.update(state=CodingTask.State.ACTIVE)
    assert FollowUp.objects.get().workflow_id == workflow_of(message)
    mention = Mention.objects.get(ts=message["ts"])
    closing.close(mention.pk, Mention.State.FORWARDED, "follow-up")
    FollowUp.objects.update(received_at=timezone.now() - timedelta(minutes=1))
    tasks.deliver_pending_follow_ups()
    assert FollowUp.objects.get(ts=reply["ts"]).state == "signalled"
    assert temporal.signals(task.workflow_id) == ["follow_up"]


def test_a_reply_that_waits_for_a_mention_is_no_message_for_somebody_elses_task(webhook, task):
    CodingTask.objects.update(state=CodingTask.State.DONE)
    message = webhook.mention(text="<@UBOT> and this", thread_ts=task.thread_ts, user="U2")
    webhook.reply("the one in the shop", task.thread_ts, user="U2")
    CodingTask.objects.update(state=CodingTask.State.ACTIVE)
    mention = Mention.objects.get(ts=message["ts"])
    closing.close(mention.pk, Mention.State.REFUSED, "another user's task")
    assert FollowUp.objects.get().state == "dropped"


def test_the_end_of_a_mention_leaves_the_messages_of_its_own_task_alone(webhook, task):
    webhook.reply("and the tests?", task.thread_ts)
    closing.close(Mention.objects.get().pk, Mention.State.ANSWERED, "")
    assert FollowUp.objects.get().state == "signalled"


def test_a_reply_to_a_mention_whose_workflow_cannot_be_found_is_kept(webhook, workspace, temporal):
    mention = webhook.mention()
    unknown = f"{mention['ts']}404"  # Temporal knows the workflows of other tests' mentions, too
    Mention.objects.update(ts=unknown, workflow_id=workflow_id("T1", "C1", unknown))
    webhook.reply("in the shop, please", mention["ts"])
    assert FollowUp.objects.get().state == "received"


def _after(message: dict) -> str:
    seconds, _, micro = message["ts"].partition(".")
    return f"{int(seconds) + 1}.{micro}"


# --- Out of credits ------------------------------------------------------------------------------
@pytest.mark.case("S26")
def test_an_owner_out_of_credits_is_told_once_and_nothing_is_forwarded(
    webhook, task, exhausted, temporal
):
    for text in ("go on", "please", "hello?"):
        webhook.reply(text, task.thread_ts)
        tasks.deliver_pending_notices()
    assert set(FollowUp.objects.values_list("state", flat=True)) == {"refused"}
    assert temporal.signals(task.workflow_id) == []
    [denial] = webhook.slack.bot_messages("C1")
    assert denial["thread_ts"] == task.thread_ts
    assert denial["text"].startswith("Your team has used its monthly Tollgate AI credits.")


def test_an_owner_out_of_credits_who_names_the_bot_gets_a_denial_and_no_new_task(
    webhook, task, exhausted, temporal
):
    message = webhook.mention(text="<@UBOT> go on", thread_ts=task.thread_ts)
    webhook.deliver(webhook.slack.event(message, "message"))
    webhook.reply("hello?", task.thread_ts)
    tasks.deliver_pending_notices()
    assert Mention.objects.get(ts=message["ts"]).state == "refused"
    assert len(webhook.slack.bot_messages("C1")) == 1
    assert temporal.signals(task.workflow_id) == []
    assert not temporal.has(workflow_of(message))


def test_a_refused_reply_does_not_start_a_task_when_it_is_delivered_again_after_the_tasks_end(
    webhook, task, exhausted, temporal
):
    message = webhook.mention(text="<@UBOT> go on", thread_ts=task.thread_ts)
    CodingTask.objects.update(state=CodingTask.State.DONE)
    set_limit(task.project.organization, AI_CREDITS, None)
    webhook.deliver(webhook.slack.event(message, "message"))
    assert not temporal.has(workflow_of(message))


@pytest.mark.case("S26")
def test_small_talk_in_other_threads_is_ignored_without_credits(webhook, workspace, out_of_credits):
    root = webhook.slack.post("lunch?", user="U2")
    webhook.reply("yes", root["ts"])
    webhook.slack.post("anybody?", user="U1")
    assert not Notice.objects.exists()
    assert not FollowUp.objects.exists()


# --- A workspace that has moved to another project -----------------------------------------------
def test_the_credits_that_count_for_a_running_task_are_those_of_the_project_that_pays(
    webhook, task, workspace, stranger, temporal
):
    set_limit(task.project.organization, AI_CREDITS, 0)
    SlackWorkspace.objects.update(project=stranger)
    webhook.reply("go on", task.thread_ts)
    webhook.mention(text="<@UBOT> go on", thread_ts=task.thread_ts)
    assert FollowUp.objects.get().state == "refused"
    assert Mention.objects.latest("received_at").state == "refused"
    assert temporal.signals(task.workflow_id) == []


def test_the_new_projects_limit_does_not_stop_the_old_ones_task(
    webhook, task, workspace, stranger, temporal
):
    set_limit(stranger.organization, AI_CREDITS, 0)
    SlackWorkspace.objects.update(project=stranger)
    webhook.reply("go on", task.thread_ts)
    assert FollowUp.objects.get().state == "signalled"


# --- Other people --------------------------------------------------------------------------------
@pytest.mark.case("S26")
def test_small_talk_by_others_in_the_thread_is_ignored(webhook, task, temporal):
    webhook.reply("nice", task.thread_ts, user="U2")
    assert not FollowUp.objects.exists()
    assert not Notice.objects.exists()
    assert temporal.signals(task.workflow_id) == []


@pytest.mark.case("S26")
def test_small_talk_by_others_is_ignored_without_credits_too(webhook, task, exhausted, temporal):
    webhook.reply("nice", task.thread_ts, user="U2")
    tasks.deliver_pending_notices()
    assert not FollowUp.objects.exists()
    assert webhook.slack.calls() == []
    assert temporal.signals(task.workflow_id) == []


@pytest.mark.case("S26")
def test_others_who_name_the_bot_are_told_once_each_whose_task_it_is(webhook, task, temporal):
    for user in ("U2", "U3", "U2"):
        webhook.mention(text="<@UBOT> now do mine", thread_ts=task.thread_ts, user=user)
        tasks.deliver_pending_notices()
    told = [message["text"] for message in webhook.slack.bot_messages("C1")]
    assert len(told) == 2
    assert all("<@U1>" in text for text in told)
    assert ["<@U2>" in text for text in told] == [True, False]
    assert temporal.signals(task.workflow_id) == []
    assert set(Mention.objects.exclude(user_id="U1").values_list("state", flat=True)) == {"refused"}


@pytest.mark.case("S26")
def test_others_are_told_whose_task_it_is_even_when_credits_are_out(webhook, task, exhausted):
    webhook.mention(text="<@UBOT> now do mine", thread_ts=task.thread_ts, user="U2")
    assert Notice.objects.get().kind == "not_your_task"


# --- When something is down ----------------------------------------------------------------------
def test_without_temporal_a_reply_is_kept_and_signalled_later(
    webhook, task, settings, monkeypatch, temporal_address, temporal
):

    with monkeypatch.context() as patch:
        patch.setattr(client, "_connection", None)
        settings.TEMPORAL_ADDRESS = "127.0.0.1:1"
        reply = webhook.reply("and the tests?", task.thread_ts)
        assert FollowUp.objects.get().state == "received"
    settings.TEMPORAL_ADDRESS = temporal_address
    FollowUp.objects.update(received_at=timezone.now() - timedelta(minutes=1))
    tasks.deliver_pending_follow_ups()
    webhook.deliver(webhook.slack.event(reply, "message"))
    assert FollowUp.objects.get().state == "signalled"
    assert temporal.signals(task.workflow_id) == ["follow_up"]


@pytest.mark.django_db(transaction=True)
def test_slack_gets_200_if_the_database_fails_after_recording_a_reply(webhook, task, temporal):
    def fails_after_the_signal(execute, sql, *rest):
        if sql.startswith("UPDATE") and "followup" in sql:
            raise OperationalError("the database is down")
        return execute(sql, *rest)

    with connection.execute_wrapper(fails_after_the_signal):
        reply = webhook.reply("and the tests?", task.thread_ts)
    FollowUp.objects.update(received_at=timezone.now() - timedelta(minutes=1))
    tasks.deliver_pending_follow_ups()
    webhook.deliver(webhook.slack.event(reply, "message"))
    assert FollowUp.objects.get().state == "signalled"


def test_slack_redelivers_if_the_database_fails_before_recording_a_reply(webhook, task):
    def fails_at_the_record(execute, sql, *rest):
        if sql.startswith("INSERT") and "threadreply" in sql:
            raise OperationalError("the database is down")
        return execute(sql, *rest)

    reply = webhook.slack.post("and the tests?", thread_ts=task.thread_ts)
    with connection.execute_wrapper(fails_at_the_record):
        assert webhook.deliver(webhook.slack.event(reply, "message")).status_code == 503
    assert not FollowUp.objects.exists()
    assert webhook.deliver(webhook.slack.event(reply, "message")).status_code == 200
    assert FollowUp.objects.get().state == "signalled"


def test_a_resumed_forward_is_not_denied(webhook, task, exhausted, temporal):
    message = webhook.slack.post("<@UBOT> go on", thread_ts=task.thread_ts)
    Mention.objects.create(
        workspace=task.workspace,
        team_id="T1",
        channel_id="C1",
        ts=message["ts"],
        thread_ts=task.thread_ts,
        user_id="U1",
        text=message["text"],
        lease_until=timezone.now() - timedelta(seconds=1),
    )
    tasks.start_pending_mentions()
    assert FollowUp.objects.get().state == "signalled"
    assert not Notice.objects.exists()


def test_a_reply_that_was_just_recorded_is_left_to_the_request_that_recorded_it(webhook, task):
    FollowUp.objects.create(
        workspace=task.workspace,
        channel_id="C1",
        ts="100.7",
        thread_ts=task.thread_ts,
        user_id="U1",
        text="and?",
        addressed=False,
        workflow_id=task.workflow_id,
    )
    tasks.deliver_pending_follow_ups()
    assert FollowUp.objects.get().state == "received"


def test_a_reply_naming_the_bot_to_a_workflow_that_is_gone_starts_anew(webhook, task, temporal):
    CodingTask.objects.update(workflow_id="mention-never-started")
    message = webhook.mention(text="<@UBOT> and the tests?", thread_ts=task.thread_ts)
    tasks.start_pending_mentions()
    assert FollowUp.objects.get().state == "dropped"
    assert CodingTask.objects.get().state == "failed"
    assert Mention.objects.get(ts=message["ts"]).state == "started"
    assert temporal.has(workflow_of(message))
