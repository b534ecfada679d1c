"""Orders to stop are never prompts, whatever the order in which messages arrive."""

from datetime import timedelta

import pytest
from django.utils import timezone

from billing.allowances.limits import set_limit
from coding_tasks.models import CodingTask, Repository, TaskRun
from coding_tasks.runs import TIME_LIMIT
from projects.authentication.credentials import mint_run_token
from projects.models import OAuthAccessToken, SlackWorkspace
from quota.resources import AI_CREDITS
from tests.slack_bot.conftest import workflow_of
from workflows import denials, tasks
from workflows.intake import follow_ups
from workflows.models import FollowUp, Mention, Notice, ThreadReply
from workflows.temporal import client
from workflows.temporal.client import TemporalUnavailable

ORDERS = [
    "stop",
    "Stop.",
    " STOP! ",
    "cancel",
    "*stop*",
    "_Stop_",
    "stop :octagonal_sign:",
    "🛑 stop",
    "please stop",
    "stop it now",
    "Stopp!",
    "arrête",
    "abbrechen bitte",
    "<@UBOT> stop",
    "stop\n<@UBOT>",
    "\uff33\uff34\uff2f\uff30",
    "~cancel~",
    "`stop`",
    "stop, stop, stop",
]
NOTHING_TO_STOP = (
    "<@U1>, nothing was running in this thread when you wrote that, so there is nothing to stop."
)
TO_OTHERS = [
    "<@UALICE> stop",
    "<@UALICE|alice> please stop",
    "stop <@UALICE>",
    "<@UALICE> <@UBEN> stop",
    "<!subteam^S1|@devs> stop",
    "<!here> stop",
    ":wave: <@UALICE> stop",
]
PROMPTS = [
    "stop the server from crashing",
    "don't stop",
    "why did it stop?",
    "nonstop",
    "cancel order",
    "please",
    "ask <@UALICE> about it",
    "stop asking <@UALICE>",
    "<@UALICE> what do you think?",
    "<@UALICE>",
    "@alice stop please",
]


@pytest.fixture
def running(task) -> TaskRun:
    """A run of U1, with a token, that the agent is working on."""
    run = TaskRun.objects.create(
        task=task, message_ts=task.thread_ts, request="look", state=TaskRun.State.RUNNING
    )
    mint_run_token(task.project, run.pk, ["slack_app"], TIME_LIMIT, distinct_id="slack:T1:U1")
    return run


def said(webhook) -> list[str]:
    tasks.deliver_pending_notices()
    return [each["text"] for each in webhook.slack.bot_messages("C1")]


def let_sweeps_run() -> None:
    """Let time pass until the sweeps have seen every reply and mention."""
    ThreadReply.objects.update(received_at=timezone.now() - timedelta(minutes=1))
    tasks.match_replies()
    tasks.start_pending_mentions()


def deliver(webhook, text: str, thread_ts: str, **fields) -> dict:
    """Post a message in the thread and deliver its events, as Slack would."""
    message = webhook.slack.post(text, thread_ts=thread_ts, **fields)
    if "<@UBOT>" in text:
        webhook.deliver(webhook.slack.event(message))
    webhook.deliver(webhook.slack.event(message, "message"))
    return message


@pytest.mark.parametrize("text", ORDERS)
def test_the_owner_ends_the_run_with_a_word(webhook, running, temporal, text):
    message = deliver(webhook, text, running.task.thread_ts)
    running.refresh_from_db()
    assert running.state == "stopped"
    assert CodingTask.objects.get().state == "stopped"
    assert not OAuthAccessToken.objects.filter(task_run_id=running.pk).exists()
    assert not FollowUp.objects.exists()
    assert not temporal.has(workflow_of(message))
    [stopped] = said(webhook)
    assert stopped == (
        "Stopped, as <@U1> asked. It has used no Tollgate AI credits. The AI provider may "
        "still have been answering, which is charged as well. Mention Tollgate to start again."
    )


@pytest.mark.parametrize("text", TO_OTHERS)
def test_an_order_to_others_neither_stops_the_work_nor_is_a_prompt(
    webhook, running, temporal, text
):
    deliver(webhook, text, running.task.thread_ts)
    running.refresh_from_db()
    assert running.state == "running"
    assert said(webhook) == []
    assert not FollowUp.objects.exists()
    assert not ThreadReply.objects.exists()


@pytest.mark.parametrize("text", ["<@UBOT> <@UALICE> stop", "<@UALICE> stop <@UBOT>"])
def test_an_order_to_the_bot_and_others_stops_the_work(webhook, running, temporal, text):
    deliver(webhook, text, running.task.thread_ts)
    running.refresh_from_db()
    assert running.state == "stopped"


@pytest.mark.parametrize("text", PROMPTS)
def test_a_message_about_stopping_is_a_prompt(webhook, running, temporal, text):
    deliver(webhook, text, running.task.thread_ts)
    assert FollowUp.objects.get().state == "signalled"
    assert CodingTask.objects.get().state == "active"


def test_an_order_that_is_delivered_again_stops_nothing_else(webhook, running, temporal):
    message = deliver(webhook, "<@UBOT> stop", running.task.thread_ts)
    CodingTask.objects.update(state=CodingTask.State.ACTIVE)
    TaskRun.objects.update(state=TaskRun.State.RUNNING)
    webhook.deliver(webhook.slack.event(message))
    assert CodingTask.objects.get().state == "active"
    assert len(said(webhook)) == 1


@pytest.mark.parametrize("text", ["stop", "<@UBOT> stop"])
def test_others_are_told_once_whose_run_it_is(webhook, running, temporal, text):
    for _ in range(3):
        deliver(webhook, text, running.task.thread_ts, user="U2")
    running.refresh_from_db()
    assert running.state == "running"
    assert said(webhook) == ["<@U2>, only <@U1> can stop the work in this thread."]
    assert not FollowUp.objects.exists()


def test_stopping_with_nothing_running_says_so_and_keeps_the_conversation_open(
    webhook, task, temporal
):
    Mention.objects.update(state=Mention.State.ANSWERED)
    deliver(webhook, "stop", task.thread_ts)
    assert said(webhook) == [NOTHING_TO_STOP]
    assert CodingTask.objects.get().state == "active"
    assert not FollowUp.objects.exists()


def test_at_top_level_there_is_nothing_to_stop_and_nothing_starts(webhook, workspace, temporal):
    message = webhook.mention(text="<@UBOT> stop")
    assert not temporal.has(workflow_of(message))
    assert "nothing to stop" in said(webhook)[0]


def test_in_threads_of_others_the_word_is_not_for_the_bot(webhook, workspace, temporal):
    root = webhook.slack.post("lunch?", user="U2")
    deliver(webhook, "stop", root["ts"])
    assert said(webhook) == []
    assert not Mention.objects.exists()


def test_stopping_works_without_credits(webhook, running, out_of_credits, temporal):
    deliver(webhook, "<@UBOT> stop", running.task.thread_ts)
    running.refresh_from_db()
    assert running.state == "stopped"
    assert said(webhook)[0].startswith("Stopped")


def test_a_paused_run_is_stopped(webhook, running, temporal):
    TaskRun.objects.update(state=TaskRun.State.PAUSED)
    deliver(webhook, "stop", running.task.thread_ts)
    running.refresh_from_db()
    assert running.state == "stopped"
    assert "may still have been answering" not in said(webhook)[0]


def test_stopping_drops_waiting_messages(webhook, task, temporal):
    webhook.reply("and the tests?", task.thread_ts)
    deliver(webhook, "stop", task.thread_ts)
    assert FollowUp.objects.get().state == "dropped"


def test_a_mention_that_has_no_task_yet_is_stopped(webhook, workspace, temporal):
    mention = webhook.mention()
    deliver(webhook, "stop", mention["ts"])
    assert Mention.objects.get(ts=mention["ts"]).state == "stopped"
    assert said(webhook)[0].startswith("Stopped")


@pytest.mark.parametrize("text", ["stop", "<@UBOT> stop"])
def test_an_order_that_overtakes_its_mention_keeps_it_from_starting(
    webhook, workspace, temporal, slack, text
):
    mention = slack.post("<@UBOT> look")
    deliver(webhook, text, mention["ts"])
    webhook.deliver(slack.event(mention))
    assert Mention.objects.get(ts=mention["ts"]).state == "stopped"
    assert not temporal.has(workflow_of(mention))
    assert not ThreadReply.objects.exists()


def test_after_a_stop_a_reply_begins_nothing_and_a_mention_starts_anew(webhook, running, temporal):
    thread = running.task.thread_ts
    deliver(webhook, "stop", thread)
    reply = webhook.reply("ok", thread)
    assert not temporal.has(workflow_of(reply))
    again = webhook.mention(text="<@UBOT> the other one", thread_ts=thread)
    assert temporal.has(workflow_of(again))


def test_a_denied_request_is_withdrawn(webhook, workspace, out_of_credits, temporal):
    mention = webhook.mention()
    deliver(webhook, "cancel", mention["ts"])
    set_limit(workspace.project.organization, AI_CREDITS, None)
    assert not temporal.has(workflow_of(webhook.reply("ok", mention["ts"])))


def test_without_temporal_the_run_is_stopped_all_the_same(webhook, running, monkeypatch):
    def unreachable(_workflow_id):
        raise TemporalUnavailable("no answer in time")

    monkeypatch.setattr(client, "cancel", unreachable)
    deliver(webhook, "stop", running.task.thread_ts)
    running.refresh_from_db()
    assert running.state == "stopped"
    assert said(webhook)[0].startswith("Stopped")


def test_an_order_whose_process_died_half_way_is_obeyed_by_the_sweep(
    webhook, workspace, temporal, monkeypatch
):
    mention = webhook.mention()

    def dies(*_arguments):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("workflows.intake.stop_orders._stop_own_task", dies)
        deliver(webhook, "stop", mention["ts"])
    assert Mention.objects.get(ts=mention["ts"]).state == "stopped"
    tasks.start_pending_mentions()
    assert said(webhook)[0].startswith("Stopped")
    assert Notice.objects.count() == 1


def test_messages_written_before_a_stop_begin_nothing_when_they_arrive_after_it(
    webhook, task, temporal
):
    """Nothing ran when the order came, so the conversation is still open."""
    Mention.objects.update(state=Mention.State.ANSWERED)
    late = webhook.slack.post("and the tests?", thread_ts=task.thread_ts)
    deliver(webhook, "stop", task.thread_ts)
    webhook.deliver(webhook.slack.event(late, "message"))
    let_sweeps_run()
    assert not FollowUp.objects.exists()


@pytest.mark.parametrize("has_run", [True, False])
def test_a_reply_that_overtakes_a_stop_is_not_lost_with_the_work(webhook, task, temporal, has_run):
    if has_run:
        TaskRun.objects.create(task=task, message_ts=task.thread_ts, request="look")
    order = webhook.slack.post("stop", thread_ts=task.thread_ts)
    webhook.reply("do the other one", task.thread_ts)
    webhook.deliver(webhook.slack.event(order, "message"))
    let_sweeps_run()
    said(webhook)
    [hint] = webhook.slack.ephemeral_messages("C1")
    assert hint["visible_to"] == "U1"


def test_a_mention_that_is_stopped_while_it_is_handed_to_its_task_is_no_message_for_it(
    webhook, task, temporal, monkeypatch
):
    Mention.objects.update(state=Mention.State.ANSWERED)
    lock = follow_ups.lock_active_task

    def stopped_meanwhile(*arguments):
        Mention.objects.filter(state=Mention.State.RECEIVED).update(state=Mention.State.STOPPED)
        return lock(*arguments)

    monkeypatch.setattr(follow_ups, "lock_active_task", stopped_meanwhile)
    webhook.mention(thread_ts=task.thread_ts)
    assert not FollowUp.objects.exists()


def test_a_reply_that_is_recorded_while_a_later_stop_is_obeyed_is_no_message_for_the_task(
    webhook, task, temporal, monkeypatch
):
    """Nothing ran when the order was obeyed, and the thread was told so."""
    Mention.objects.update(state=Mention.State.ANSWERED)
    reply = webhook.slack.post("and the tests?", thread_ts=task.thread_ts)
    ask = denials.refusal_for

    def stopped_meanwhile(*arguments):
        deliver(webhook, "stop", task.thread_ts)
        return ask(*arguments)

    monkeypatch.setattr(denials, "refusal_for", stopped_meanwhile)
    webhook.deliver(webhook.slack.event(reply, "message"))
    let_sweeps_run()
    assert said(webhook) == [NOTHING_TO_STOP]
    assert not FollowUp.objects.exists()


@pytest.mark.parametrize("had_worked", [True, False])
def test_a_stop_that_comes_late_leaves_work_alone_that_was_asked_for_after_it(
    webhook, task, temporal, had_worked
):
    """As if Slack had delivered it again after a minute."""
    order = webhook.slack.post("stop", thread_ts=task.thread_ts)
    later = webhook.slack.post("<@UBOT> the other one", thread_ts=task.thread_ts)
    if had_worked:
        TaskRun.objects.create(
            task=task, message_ts=task.thread_ts, request="look", state=TaskRun.State.SUCCEEDED
        )
    Mention.objects.update(state=Mention.State.ANSWERED)
    run = TaskRun.objects.create(
        task=task, message_ts=later["ts"], request="the other one", state=TaskRun.State.RUNNING
    )
    webhook.deliver(webhook.slack.event(order, "message"))
    run.refresh_from_db()
    assert run.state == "running"
    assert CodingTask.objects.get().state == "active"
    assert said(webhook) == [NOTHING_TO_STOP]


def test_work_that_overtook_a_stop_and_ends_with_older_work_begins_anew(webhook, running, temporal):
    order = webhook.slack.post("stop", thread_ts=running.task.thread_ts)
    mention = webhook.mention(text="<@UBOT> the other one", thread_ts=running.task.thread_ts)
    TaskRun.objects.create(task=running.task, message_ts=mention["ts"], request="the other one")
    FollowUp.objects.update(state=FollowUp.State.HANDLED)
    webhook.deliver(webhook.slack.event(order, "message"))
    let_sweeps_run()
    assert temporal.has(workflow_of(mention))


def test_a_reply_that_overtook_a_stop_follows_its_mention(webhook, running, temporal):
    order = webhook.slack.post("stop", thread_ts=running.task.thread_ts)
    mention = webhook.mention(text="<@UBOT> the other one", thread_ts=running.task.thread_ts)
    webhook.reply("in the shop", running.task.thread_ts)
    webhook.deliver(webhook.slack.event(order, "message"))
    let_sweeps_run()
    follow_up = FollowUp.objects.get(text="in the shop")
    assert follow_up.workflow_id == workflow_of(mention)
    assert follow_up.state in FollowUp.WAITING


def test_a_mention_that_overtakes_a_stop_begins_anew(webhook, running, temporal):
    order = webhook.slack.post("stop", thread_ts=running.task.thread_ts)
    mention = webhook.mention(text="<@UBOT> the other one", thread_ts=running.task.thread_ts)
    webhook.deliver(webhook.slack.event(order, "message"))
    let_sweeps_run()
    assert temporal.has(workflow_of(mention))


def test_a_reply_to_a_stop_that_is_not_obeyed_yet_waits_for_it(
    webhook, running, temporal, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr("workflows.intake.stop_orders.obey", lambda _order: 1 / 0)
        deliver(webhook, "stop", running.task.thread_ts)
    webhook.reply("do the other one", running.task.thread_ts)
    assert not FollowUp.objects.exists()
    tasks.start_pending_mentions()
    let_sweeps_run()
    said(webhook)
    assert len(webhook.slack.ephemeral_messages("C1")) == 1


def test_a_stop_of_another_workspaces_thread_reaches_nothing(webhook, running, stranger, temporal):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    Repository.objects.create(project=stranger, full_name="a/b", clone_url="https://x/y")
    message = webhook.slack.post("stop", thread_ts=running.task.thread_ts)
    payload = webhook.slack.event(message, "message")
    payload["authorizations"][0]["team_id"] = "T2"
    webhook.deliver(payload)
    running.refresh_from_db()
    assert running.state == "running"
