"""`conversations.*`, `users.*` and `reactions.*`: what the bot reads, and how it reacts.

https://docs.slack.dev/reference/methods/conversations.replies
"""

from devstack.demo_slack.api_call import ApiCall, SlackError
from devstack.demo_slack.workspace import Json


def conversations_info(call: ApiCall) -> Json:
    """`conversations.info`."""
    return {"channel": call.channel()}


def conversations_open(call: ApiCall) -> Json:
    """`conversations.open`, with one person."""
    channel = call.workspace.direct_channel(call.text("users"))
    if channel is None or channel["context_team_id"] != call.install.team_id:
        raise SlackError("user_not_found")
    return {"channel": {"id": channel["id"]}}


def conversations_replies(call: ApiCall) -> Json:
    """`conversations.replies`: a thread by its root or any reply, oldest first."""
    channel = call.channel()["id"]
    wanted = call.text("ts")
    message = call.workspace.message(channel, wanted)
    root = message.get("thread_ts", wanted) if message else wanted
    thread = call.workspace.thread(channel, root)
    if not thread:
        raise SlackError("thread_not_found")
    if len(thread) > 1 and thread[0]["ts"] == root:
        replies = {"reply_count": len(thread) - 1, "latest_reply": thread[-1]["ts"]}
        thread[0] |= {"thread_ts": root, **replies}
    return _read(call, channel, thread)


def conversations_history(call: ApiCall) -> Json:
    """`conversations.history`: the channel's messages outside threads, newest first."""
    channel = call.channel()["id"]
    messages = call.workspace.messages(channel)
    roots = [one for one in messages if one.get("thread_ts", one["ts"]) == one["ts"]]
    return _read(call, channel, roots[::-1])


def _read(call: ApiCall, channel: str, messages: list[Json]) -> Json:
    page, cursor = call.page([message for message in messages if _is_within(call, message)])
    for message in page:
        if not call.is_true("include_all_metadata"):
            message.pop("metadata", None)
        if reactions := call.workspace.reactions(channel, message["ts"]):
            message["reactions"] = reactions
    return {
        "messages": page,
        "has_more": bool(cursor),
        "response_metadata": {"next_cursor": cursor},
    }


def _is_within(call: ApiCall, message: Json) -> bool:
    """Return whether a message lies between `oldest` and `latest`."""
    ts, oldest, latest = message["ts"], call.text("oldest"), call.text("latest")
    if call.is_true("inclusive") and ts in (oldest, latest):
        return True
    return ts > oldest and (not latest or ts < latest)


def users_info(call: ApiCall) -> Json:
    """`users.info`. It also finds people of other teams, as in shared channels and enterprises."""
    user = call.workspace.user(call.text("user"))
    if user is None:
        raise SlackError("user_not_found")
    return {"user": user}


def users_conversations(call: ApiCall) -> Json:
    """`users.conversations`: the channels that the bot is in."""
    channels = [
        channel
        for channel in call.workspace.channels()
        if channel["context_team_id"] == call.install.team_id and channel["is_member"]
    ]
    page, cursor = call.page(channels)
    return {"channels": page, "response_metadata": {"next_cursor": cursor}}


def reactions_add(call: ApiCall) -> Json:
    """`reactions.add`."""
    if not call.workspace.add_reaction(*_reaction(call)):
        raise SlackError("already_reacted")
    return {}


def reactions_remove(call: ApiCall) -> Json:
    """`reactions.remove`."""
    if not call.workspace.remove_reaction(*_reaction(call)):
        raise SlackError("no_reaction")
    return {}


def _reaction(call: ApiCall) -> tuple[str, str, str, str]:
    name = call.text("name").strip(":")
    if not name:
        raise SlackError("invalid_name")
    channel = call.channel()["id"]
    message = call.message(channel, "timestamp")
    return channel, message["ts"], name, call.install.bot_user_id


METHODS = {
    "conversations.history": conversations_history,
    "conversations.info": conversations_info,
    "conversations.open": conversations_open,
    "conversations.replies": conversations_replies,
    "reactions.add": reactions_add,
    "reactions.remove": reactions_remove,
    "users.conversations": users_conversations,
    "users.info": users_info,
}
