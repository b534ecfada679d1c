"""Agent sessions: Slack shows the state of a thread's work, and its stop button ends the work."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from coding_tasks.models import CodingTask, TaskRun
from projects.models import SlackWorkspace
from workflows import tasks
from workflows.agent_sessions import availability, showing
from workflows.erasure import erase
from workflows.models import AgentAvailability, AgentSession, FollowUp, Mention, Notice

STATUS, RENAME = "agents.sessions.setStatus", "agents.sessions.rename"


@pytest.fixture
def run(task: CodingTask) -> TaskRun:
    """A run of U1 at work."""
    return TaskRun.objects.create(
        task=task, message_ts=task.thread_ts, request="x", state="running"
    )


def session(webhook, run: TaskRun) -> dict[str, Any] | None:
    """Return the session of the run's thread, after a sweep."""
    tasks.show_agent_sessions()
    return webhook.slack.session(run.task.thread_ts)


def calls(webhook, method: str = STATUS) -> list[dict[str, Any]]:
    return [call.arguments for call in webhook.slack.calls(method)]


def pass_time(monkeypatch, **time: float) -> None:
    later = timezone.now() + timedelta(**time)
    monkeypatch.setattr(timezone, "now", lambda: later)


# --- What Slack shows ----------------------------------------------------------------------------
def test_a_thread_at_work_has_a_session_with_title_and_initiator(webhook, run):
    for _ in range(3):
        shown = session(webhook, run)
    assert shown == {"title": "Look", "initiator": "U1", "status": "processing"}
    assert len(calls(webhook)) == 1


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("queued", "processing"),
        ("paused", "suspended"),
        ("succeeded", "active"),
        ("failed", "active"),
    ],
)
def test_the_session_follows_the_run(webhook, run, state, status):
    session(webhook, run)
    TaskRun.objects.update(state=state)
    assert session(webhook, run)["status"] == status
    TaskRun.objects.create(task=run.task, message_ts="9.9", request="y", state="running")
    assert session(webhook, run)["status"] == "processing"


@pytest.mark.parametrize("state", ["done", "failed", "stopped"])
def test_the_session_is_closed_with_the_task_and_opened_by_the_next_one(webhook, run, state):
    session(webhook, run)
    CodingTask.objects.update(state=state)
    for _ in range(2):
        assert session(webhook, run)["status"] == "closed"
    assert len(calls(webhook)) == 2
    CodingTask.objects.update(state="active")
    assert session(webhook, run)["status"] == "processing"


def test_a_thread_in_which_no_run_began_has_no_session(webhook, task):
    tasks.show_agent_sessions()
    assert calls(webhook) == []


def test_a_task_without_a_thread_has_no_session(webhook, run):
    CodingTask.objects.update(origin="api", workspace=None)
    tasks.show_agent_sessions()
    assert calls(webhook) == []


def test_a_new_title_renames_the_session(webhook, run):
    session(webhook, run)
    CodingTask.objects.update(title="Look again")
    assert session(webhook, run)["title"] == "Look again"
    assert len(calls(webhook)) == 1


def test_an_erasure_takes_the_title_out_of_an_ended_session(webhook, run):
    session(webhook, run)
    CodingTask.objects.update(state="done")
    session(webhook, run)
    erase("T1", "U1")
    assert session(webhook, run) == {"title": "[erased]", "initiator": "U1", "status": "closed"}


def test_an_erasure_takes_the_title_out_of_a_session_that_slack_is_not_told_of(webhook, run):
    session(webhook, run)
    SlackWorkspace.objects.update(is_active=False)
    erase("T1", "U1")
    assert AgentSession.objects.get().title == ""
    SlackWorkspace.objects.update(is_active=True)
    assert session(webhook, run)["title"] == "[erased]"


def test_one_process_at_a_time_sets_a_status_even_if_another_died(webhook, run, monkeypatch):
    [wanted] = showing.due(timezone.now())
    AgentSession.objects.create(
        workspace=run.task.workspace,
        channel_id="C1",
        thread_ts=run.task.thread_ts,
        due_at=timezone.now() + timedelta(seconds=30),
    )
    showing.show(wanted)
    assert calls(webhook) == []
    pass_time(monkeypatch, seconds=31)  # the other process died
    showing.show(wanted)
    assert session(webhook, run)["status"] == "processing"
    assert len(calls(webhook)) == 1


# --- Workspaces and threads without sessions -----------------------------------------------------
@pytest.mark.parametrize(
    "error",
    [
        "unknown_method",
        "feature_not_enabled",
        "missing_scope",
        "not_allowed_token_type",
        "not_agent",
    ],
)
def test_a_workspace_without_sessions_is_asked_once_an_hour(webhook, run, monkeypatch, error):
    second = CodingTask.objects.create(
        project=run.task.project, repository=run.task.repository, workspace=run.task.workspace,
        channel_id="C1", thread_ts="200.1", owner_slack_user_id="U1", title="x", workflow_id="v",
    )  # fmt: skip
    TaskRun.objects.create(task=second, message_ts="200.1", request="x", state="running")
    webhook.slack.fail_next(STATUS, error, times=50)
    for _ in range(3):
        tasks.show_agent_sessions()
    assert len(calls(webhook)) == 1
    pass_time(monkeypatch, minutes=59)
    tasks.show_agent_sessions()
    assert len(calls(webhook)) == 1
    pass_time(monkeypatch, minutes=2)
    for _ in range(3):
        tasks.show_agent_sessions()
    assert len(calls(webhook)) == 2


def test_sessions_are_shown_once_a_workspace_has_them(webhook, run, monkeypatch):
    webhook.slack.fail_next(STATUS, "missing_scope")
    session(webhook, run)
    pass_time(monkeypatch, minutes=61)
    assert session(webhook, run)["status"] == "processing"
    assert AgentAvailability.objects.get().works


def test_a_workspace_that_installs_the_app_again_is_asked_at_once(webhook, run):
    webhook.slack.fail_next(STATUS, "missing_scope")
    assert session(webhook, run) is None
    SlackWorkspace.objects.update(installed_at=timezone.now())
    assert session(webhook, run)["status"] == "processing"


def test_one_of_several_processes_asks_a_workspace(webhook, run, monkeypatch):
    now = timezone.now()
    asked = [availability.may_call(run.task.workspace_id, now) for _ in range(3)]
    assert asked == [True, False, False]
    later = now + availability.TRY_EVERY
    assert [availability.may_call(run.task.workspace_id, later) for _ in range(2)] == [True, False]


def test_a_thread_that_slack_refuses_does_not_end_the_sessions_of_others(webhook, run):
    webhook.slack.fail_next(STATUS, "not_in_channel")
    assert session(webhook, run) is None
    assert session(webhook, run) is None
    assert len(calls(webhook)) == 1
    assert AgentAvailability.objects.get().works


@pytest.mark.parametrize(
    ("error", "wait"), [("ratelimited", 31), ("internal_error", 11), ("service_unavailable", 11)]
)
def test_a_temporary_failure_is_tried_again(webhook, run, monkeypatch, error, wait):
    webhook.slack.fail_next(STATUS, error, retry_after=30 if error == "ratelimited" else None)
    for _ in range(3):
        assert session(webhook, run) is None
    assert len(calls(webhook)) == 1
    pass_time(monkeypatch, seconds=wait)
    assert session(webhook, run)["status"] == "processing"


def test_a_workspace_that_is_switched_off_is_not_called(webhook, run):
    SlackWorkspace.objects.update(is_active=False)
    tasks.show_agent_sessions()
    assert calls(webhook) == []


# --- Slack's stop button -------------------------------------------------------------------------
def stop(
    webhook, run: TaskRun, user: str = "U1", team: str = "T1", **fields: Any
) -> dict[str, Any]:
    event = {
        "type": "agent_session_stopped",
        "channel": "C1",
        "thread_ts": run.task.thread_ts,
        "user": user,
        "streaming_message_ts": [],
        "event_ts": f"{timezone.now().timestamp():.6f}",
        **fields,
    }
    envelope = webhook.slack.event_of(event, team=team)
    assert webhook.deliver(envelope).status_code == 200
    tasks.deliver_pending_notices()
    return envelope


def said(webhook, run: TaskRun) -> list[str]:
    return [each["text"] for each in webhook.slack.bot_messages("C1", run.task.thread_ts)]


def shown_to(webhook, user: str) -> list[str]:
    shown = webhook.slack.ephemeral_messages("C1")
    return [each["text"] for each in shown if each["visible_to"] == user]


def test_the_owners_stop_ends_the_work_and_closes_the_session(webhook, run):
    session(webhook, run)
    stop(webhook, run)
    run.refresh_from_db()
    assert run.state == TaskRun.State.STOPPED
    assert Mention.objects.get().state == Mention.State.STOPPED
    assert session(webhook, run)["status"] == "closed"
    [stopped] = said(webhook, run)
    assert stopped.startswith("Stopped, as <@U1> asked.")


def test_a_redelivered_stop_says_and_stops_nothing_more(webhook, run):
    envelope = stop(webhook, run)
    following = TaskRun.objects.create(
        task=run.task, message_ts="9999999999.9", request="y", state="running"
    )
    CodingTask.objects.update(state="active")
    for _ in range(2):
        assert webhook.deliver(envelope).status_code == 200
    tasks.deliver_pending_notices()
    following.refresh_from_db()
    assert following.state == TaskRun.State.RUNNING
    assert (len(said(webhook, run)), shown_to(webhook, "U1")) == (1, [])


def test_another_persons_stop_stops_nothing_and_is_answered_to_them_alone(webhook, run):
    for _ in range(2):
        stop(webhook, run, "U2")
    run.refresh_from_db()
    assert run.state == TaskRun.State.RUNNING
    assert said(webhook, run) == []
    assert shown_to(webhook, "U2") == ["<@U2>, only <@U1> can stop the work in this thread."]


def test_a_stop_after_the_end_is_answered_to_the_person_alone(webhook, run):
    TaskRun.objects.update(state="succeeded")
    Mention.objects.update(state="answered")
    stop(webhook, run)
    assert said(webhook, run) == []
    assert shown_to(webhook, "U1") == [
        "<@U1>, this work has already ended, so there is nothing to stop."
    ]


def test_a_stop_takes_waiting_messages_with_it(webhook, run):
    webhook.reply("and the tests?", run.task.thread_ts)
    stop(webhook, run)
    assert FollowUp.objects.get().state == FollowUp.State.DROPPED


def test_a_stop_from_another_workspace_stops_nothing(webhook, run, stranger):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    stop(webhook, run, team="T2")
    run.refresh_from_db()
    assert run.state == TaskRun.State.RUNNING
    assert said(webhook, run) == []


@pytest.mark.parametrize(
    "fields",
    [{"thread_ts": None}, {"channel": "\0"}, {"user": []}, {"event_ts": "x"}, {"thread_ts": "1.1"}],
    ids=str,
)
def test_a_stop_of_no_thread_stops_nothing(webhook, run, fields):
    stop(webhook, run, **fields)
    run.refresh_from_db()
    assert run.state == TaskRun.State.RUNNING
    assert not Notice.objects.filter(destination=Notice.Destination.THREAD).exists()


# --- Direct messages -----------------------------------------------------------------------------
def write(webhook, text: str, user: str = "U1", **fields: Any) -> dict[str, Any]:
    """Write to the bot alone, as in the Messages tab, without a mention."""
    channel = webhook.slack.slack.workspace.direct_channel(user)["id"]
    message = webhook.slack.post(text, user=user, channel=channel, **fields)
    envelope = webhook.slack.event(message, "message", channel=channel)
    assert webhook.deliver(envelope).status_code == 200
    return message


def test_a_direct_message_needs_no_mention(webhook, workspace, temporal):
    message = write(webhook, "what does the shop do?")
    mention = Mention.objects.get()
    assert (mention.ts, mention.channel_id, mention.state) == (message["ts"], "DU1", "started")


def test_a_direct_message_that_names_the_bot_is_taken_once(webhook, workspace, temporal):
    message = write(webhook, "<@UBOT> what does the shop do?")
    webhook.deliver(webhook.slack.event(message, channel="DU1"))
    assert Mention.objects.count() == 1


def test_an_aside_and_a_message_of_the_bot_itself_start_nothing(webhook, workspace):
    write(webhook, "// never mind")
    write(webhook, "done", bot_id="B1")
    assert not Mention.objects.exists()


def test_a_message_in_a_channel_still_needs_a_mention(webhook, workspace):
    message = webhook.slack.post("what does the shop do?")
    webhook.deliver(webhook.slack.event(message, "message"))
    assert not Mention.objects.exists()


# --- What is forgotten ---------------------------------------------------------------------------
def end_of(run: TaskRun) -> None:
    TaskRun.objects.filter(pk=run.pk).update(state="succeeded")
    CodingTask.objects.filter(pk=run.task_id).update(state="done")


def test_a_closed_session_is_forgotten_only_after_its_title_was_erased(webhook, run):
    session(webhook, run)
    tasks.forget_old_rows()
    assert AgentSession.objects.get().status == "processing"
    end_of(run)
    assert session(webhook, run)["status"] == "closed"
    tasks.forget_old_rows()
    assert AgentSession.objects.get().title == "Look"
    erase("T1", "U1")
    assert session(webhook, run)["title"] == "[erased]"
    tasks.forget_old_rows()
    assert not AgentSession.objects.exists()
    assert session(webhook, run)["title"] == "[erased]"


@pytest.mark.parametrize("fields", [{"refused": True, "status": "active"}, {"status": ""}])
def test_a_thread_that_slack_does_not_show_is_forgotten_when_its_work_is_over(webhook, run, fields):
    task = run.task
    place = {"channel_id": task.channel_id, "thread_ts": task.thread_ts}
    row = AgentSession.objects.create(workspace=task.workspace, **place, **fields)
    tasks.forget_old_rows()
    assert AgentSession.objects.exists()
    end_of(run)
    AgentSession.objects.filter(pk=row.pk).update(due_at=timezone.now() + timedelta(minutes=1))
    tasks.forget_old_rows()
    assert AgentSession.objects.exists()  # a process is busy with it
    AgentSession.objects.filter(pk=row.pk).update(due_at=None)
    tasks.forget_old_rows()
    assert not AgentSession.objects.exists()
