"""`chat.*`: what the bot posts. https://docs.slack.dev/reference/methods/chat.postMessage"""

from typing import Any

from devstack.demo_slack.api_call import ApiCall, SlackError
from devstack.demo_slack.block_kit import violations
from devstack.demo_slack.workspace import Json


def post_message(call: ApiCall) -> Json:
    """`chat.postMessage`. A person's id as the channel means the direct conversation with them."""
    channel = call.workspace.direct_channel(call.text("channel")) or call.channel()
    if channel["is_archived"]:
        raise SlackError("is_archived")
    if not channel["is_member"]:
        raise SlackError("not_in_channel")
    message = call.workspace.add_message(channel["id"], _content(call, call.text("thread_ts")))
    return {"channel": channel["id"], "ts": message["ts"], "message": message}


def post_ephemeral(call: ApiCall) -> Json:
    """`chat.postEphemeral`."""
    channel = call.channel()
    user = call.workspace.user(call.text("user"))
    if user is None or user["team_id"] != call.install.team_id:
        raise SlackError("user_not_in_channel")
    content = _content(call, call.text("thread_ts"))
    message = call.workspace.add_message(channel["id"], content, visible_to=user["id"])
    return {"message_ts": message["ts"]}


def update(call: ApiCall) -> Json:
    """`chat.update`. A message that is edited with blocks is not marked as edited.

    https://docs.slack.dev/reference/methods/chat.update#text-blocks-or-attachments
    """
    channel = call.channel()
    if channel["is_archived"]:
        raise SlackError("is_inactive")
    if not channel["is_member"]:
        raise SlackError("channel_not_found")
    old = _own_message(call, channel["id"], "cant_update_message")
    content = _content(call, old.get("thread_ts", ""), call.limits.edited_text)
    new: Json = {"blocks": [], **content}
    if not new["blocks"]:
        new["edited"] = {"user": call.install.bot_user_id, "ts": old["ts"]}
    message = call.workspace.change_message(channel["id"], old["ts"], new)
    return {
        "channel": channel["id"],
        "ts": message["ts"],
        "text": message["text"],
        "message": message,
    }


def delete(call: ApiCall) -> Json:
    """`chat.delete`."""
    channel = call.channel()
    message = _own_message(call, channel["id"], "cant_delete_message")
    call.workspace.delete_message(channel["id"], message["ts"])
    return {"channel": channel["id"], "ts": message["ts"], "message": message}


def get_permalink(call: ApiCall) -> Json:
    """`chat.getPermalink`. The link opens the message on the demo's page."""
    channel = call.channel()
    message = call.message(channel["id"], "message_ts")
    link = f"{call.base_url}/archives/{channel['id']}/p{message['ts'].replace('.', '')}"
    if message.get("thread_ts"):
        link += f"?thread_ts={message['thread_ts']}&cid={channel['id']}"
    return {"channel": channel["id"], "permalink": link}


def _own_message(call: ApiCall, channel: str, refusal: str) -> Json:
    message = call.message(channel, "ts")
    if message.get("bot_id") != call.install.bot_id:
        raise SlackError(refusal)
    return message


def _content(call: ApiCall, thread_ts: str, most: int | None = None) -> Json:
    """Return the message that the arguments describe, or refuse it as Slack does."""
    text = call.text("text")
    most = call.limits.text if most is None else most
    blocks = call.structured("blocks", list, "invalid_blocks") or []
    attachments = call.structured("attachments", list, "invalid_attachments") or []
    if not text and not blocks and not attachments:
        raise SlackError("no_text")
    if len(text) > most:
        raise SlackError("msg_too_long")
    for each in (blocks, *_blocks_of(attachments)):
        _check_blocks(call, each)
    message: Json = {**call.author(), "text": text}
    if blocks:
        message["blocks"] = blocks
    if attachments:
        message["attachments"] = attachments
    metadata = call.structured("metadata", dict, "invalid_metadata_format")
    if metadata is not None:
        if not {"event_type", "event_payload"} <= metadata.keys():
            raise SlackError("invalid_metadata_schema")
        message["metadata"] = metadata
    if thread_ts:
        message["thread_ts"] = thread_ts
    return message


def _blocks_of(attachments: list[Any]) -> list[list[Any]]:
    """Return the blocks of each attachment. Our app sends attachments of blocks only.

    https://docs.slack.dev/messaging/formatting-message-text#attachments
    """
    if any(not isinstance(each, dict) or each.keys() != {"blocks"} for each in attachments):
        raise SlackError("invalid_attachments")
    return [each["blocks"] for each in attachments]


def _check_blocks(call: ApiCall, blocks: list[Any]) -> None:
    found = violations(blocks, most=call.limits.blocks, section=call.limits.section)
    if found:
        raise SlackError("invalid_blocks", found)
    in_all = sum(len(str(text)) for block in blocks for text in _texts(block))
    if in_all > call.limits.blocks_text:
        raise SlackError("msg_blocks_too_long")


def _texts(block: Json) -> list[Any]:
    texts = [block.get("text"), *block.get("fields", ()), *block.get("elements", ())]
    return [text["text"] if isinstance(text, dict) else text for text in texts if text]


METHODS = {
    "chat.delete": delete,
    "chat.getPermalink": get_permalink,
    "chat.postEphemeral": post_ephemeral,
    "chat.postMessage": post_message,
    "chat.update": update,
}
