"""`agents.sessions.*`: the state that an app sets for its work in a thread.

https://docs.slack.dev/ai/agent-sessions
"""

from devstack.demo_slack.api_call import ApiCall, SlackError
from devstack.demo_slack.workspace import Json

_STATUSES = {"active", "processing", "suspended", "closed"}
_LONGEST_TITLE = 200


def set_status(call: ApiCall) -> Json:
    """`agents.sessions.setStatus`. The title and the initiator only count for a new session."""
    channel, thread = _place(call)
    if call.text("status") not in _STATUSES:
        raise SlackError("invalid_arguments", ["status: unknown"])
    session = call.workspace.session(channel, thread) or {
        "title": _title(call),
        "initiator": call.text("initiator_user_id"),
    }
    session["status"] = call.text("status")
    call.workspace.put_session(channel, thread, session)
    return {"status": session["status"], "title": session["title"]}


def rename(call: ApiCall) -> Json:
    """`agents.sessions.rename`."""
    channel, thread = _place(call)
    session = call.workspace.session(channel, thread)
    title = _title(call)
    if session is None:
        raise SlackError("session_not_found")
    if not title:
        raise SlackError("invalid_arguments", ["title: missing or empty"])
    call.workspace.put_session(channel, thread, {**session, "title": title})
    return {"title": title}


def _place(call: ApiCall) -> tuple[str, str]:
    channel = call.channel("channel_id")
    if not channel["is_member"]:
        raise SlackError("not_in_channel")
    thread = call.text("thread_ts")
    if call.workspace.message(channel["id"], thread) is None:
        raise SlackError("thread_not_found")
    return channel["id"], thread


def _title(call: ApiCall) -> str:
    title = call.text("title")
    if len(title) > _LONGEST_TITLE:
        raise SlackError("invalid_arguments", [f"title: more than {_LONGEST_TITLE} characters"])
    return title


METHODS = {"agents.sessions.rename": rename, "agents.sessions.setStatus": set_status}
