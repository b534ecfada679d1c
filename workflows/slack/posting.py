"""The ways to deliver a notice, and how to find out whether it was delivered.

An answer was paid for. So if Slack refuses it in one way, the next way is tried, and if Slack
refuses every way, the thread's page keeps the answer. Any other notice goes to the thread or to the
user alone. `docs/slack.md` lists what Slack refuses.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.urls import reverse
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from coding_tasks.models import RunChange, RunFile
from workflows import wording
from workflows.models import Notice
from workflows.slack.block_kit import Block, ending_of, footer_of, footer_text, sections
from workflows.slack.client import Meaning, failure_of
from workflows.slack.splitting import length, split

DIFF_KEY = "diff:"
"""What the key of a notice with a change begins with. The run's id follows."""
LEFT_FILE_KEY = "file:"
"""What the key of a notice with an agent's file begins with. The run's id and a number follow."""
METADATA_TYPE = "tollgate_notice"
Destination = Notice.Destination

# Slack cuts a message's text off after 40,000 characters, and advises against more than 4,000.
# https://docs.slack.dev/reference/methods/chat.postMessage/#truncating
_LONGEST_TEXT = 39_000
_LONGEST_PART = 3_000
_SEVERAL = {Destination.PARTS, Destination.DM_PARTS}
_FILES = {Destination.FILE, Destination.DM_FILE}
_DIRECT = {Destination.DM, Destination.DM_PARTS, Destination.DM_FILE}
_CLOCK_SKEW = timedelta(minutes=10)
_PAGE = 200
# Posting to a user's id sends a direct message, which the bot then cannot read.
_NO_SUCH_THREAD = {"thread_not_found", "message_not_found", "channel_not_found"}


@dataclass(frozen=True)
class Message:
    """One message of a notice. `part` distinguishes the messages of one notice.

    Slack shows `blocks` instead of the text, and `below` in addition to it.
    """

    text: str
    blocks: Sequence[Block] = ()
    below: Sequence[Block] = ()
    part: str | int | None = None
    file_name: str = ""
    title: str = ""
    content: str | bytes = field(default="", repr=False)


@dataclass(frozen=True)
class _Place:
    channel: str
    thread_ts: str | None


# --- Which way -----------------------------------------------------------------------------------
def first_way(notice: Notice) -> str:
    """Return the destination to try now: the notice's own, unless its text is too long for it."""
    ways = _ways(notice)
    return notice.destination if notice.destination in ways else ways[0]


def next_way(notice: Notice, *, elsewhere: bool) -> str | None:
    """Return the destination to try after the notice's, or None after the last.

    `elsewhere` leaves out the other ways to the same place, which refuses everything.
    """
    ways = _ways(notice)
    for way in ways[ways.index(notice.destination) + 1 :]:
        if not elsewhere or _is_direct(way) != _is_direct(notice.destination):
            return way
    return last_way(notice) if notice.destination != last_way(notice) else None


def last_way(notice: Notice) -> str:
    """Return the destination of a notice that Slack refuses everywhere."""
    return _ways(notice)[-1]


def _ways(notice: Notice) -> list[str]:
    if notice.kind in (Notice.Kind.DIFF, Notice.Kind.FILE):
        return [Destination.FILE]
    if notice.kind == Notice.Kind.PROGRESS:
        return [Destination.THREAD]
    if notice.kind != Notice.Kind.ANSWER:
        return [Destination.THREAD, *[Destination.EPHEMERAL] * bool(notice.user_id)]
    thread = [Destination.THREAD, Destination.PARTS, Destination.FILE]
    direct = [Destination.DM, Destination.DM_PARTS, Destination.DM_FILE] * bool(notice.user_id)
    ways = [*thread, *direct]
    if length(notice.text) > _LONGEST_TEXT:  # a file is easier to read than many messages
        ways = [*thread[:0:-1], *direct[:0:-1]]
    elif length(notice.text) <= _LONGEST_PART:
        ways = [way for way in ways if way not in _SEVERAL]
    return [*ways, Destination.PAGE]


def methods_of(notice: Notice, *, searches: bool) -> set[str]:
    """Return the methods that the next attempt at the notice needs, as far as is known."""
    if is_posted(notice):
        return {"chat.delete" if notice.withdrawn else "chat.update"}
    if notice.destination in _FILES:
        methods = {"files.getUploadURLExternal", "files.completeUploadExternal"}
    elif notice.destination == Destination.EPHEMERAL:
        methods = {"chat.postEphemeral"}
    else:
        methods = {"chat.postMessage"}
    if searches:
        methods.add("conversations.replies" if notice.thread_ts else "conversations.history")
    return methods


def is_posted(notice: Notice) -> bool:
    """Return whether Slack has the notice's message, so that it can be edited or deleted."""
    return bool(notice.sent_at and notice.message_ts)


def is_editable(notice: Notice) -> bool:
    """Return whether the notice is one message that can be edited."""
    return notice.destination in (Destination.THREAD, Destination.DM)


def _is_direct(way: str) -> bool:
    return way in _DIRECT


# --- What ----------------------------------------------------------------------------------------
def messages_of(notice: Notice) -> list[Message]:
    """Return the messages to send to the notice's destination, in order."""
    if notice.destination in _SEVERAL:
        parts = split(notice.text, _LONGEST_PART)
        messages = [Message(text, part=number) for number, text in enumerate(parts)]
        if ending := ending_of(notice.blocks):
            last = messages[-1]
            messages[-1] = replace(last, blocks=[*sections(last.text), *ending])
        return messages
    if notice.kind == Notice.Kind.DIFF:
        return [_patch(notice)]
    if notice.kind == Notice.Kind.FILE:
        return [_left_file(notice)]
    if notice.destination in _FILES:
        file_name, content = f"answer-{notice.pk}.md", wording.unescape(notice.text)
        ending, cost = ending_of(notice.blocks), footer_text(notice.blocks)
        below = [Message(cost, ending, part="below")] if _has_buttons(ending) else []
        text = wording.answer_in_file(notice.user_id, cost="" if below else cost)
        return [Message(text, file_name=file_name, title="Answer", content=content), *below]
    if notice.destination == Destination.PAGE:
        text = wording.answer_elsewhere(notice.user_id, page=_page_of(notice))
        return [Message(text, part="page")]
    ending = ending_of(notice.blocks)
    if notice.blocks != ending:
        return [Message(notice.text, blocks=notice.blocks)]
    if _has_buttons(ending):  # and the text is too long for blocks
        return [Message(notice.text, below=ending)]
    return [Message(_with_cost(notice.text, ending))]


def _has_buttons(ending: Sequence[Block]) -> bool:
    return ending != footer_of(ending)


def _with_cost(text: str, blocks: Sequence[Block]) -> str:
    """Return the text of a message without blocks, which then states the cost itself."""
    return "\n\n".join(filter(None, [text, footer_text(blocks)]))


def lacks_its_file(notice: Notice) -> bool:
    """Return whether the notice's file was erased or deleted."""
    if notice.kind == Notice.Kind.DIFF:
        return not _changes(notice).exists()
    return notice.kind == Notice.Kind.FILE and not _left_files(notice).exists()


def _patch(notice: Notice) -> Message:
    change = _changes(notice).get()
    name = f"change-{notice.pk}.patch"
    return Message(notice.text, file_name=name, title="Change", content=change.patch)


def _changes(notice: Notice) -> QuerySet[RunChange]:
    return RunChange.objects.filter(run=UUID(notice.key.removeprefix(DIFF_KEY)))


def _left_file(notice: Notice) -> Message:
    file = _left_files(notice).get()
    path = PurePosixPath(file.name)
    name = f"{path.stem}-{notice.pk}{path.suffix}"  # `find` looks for this name
    return Message(notice.text, file_name=name, title=file.name, content=bytes(file.content))


def _left_files(notice: Notice) -> QuerySet[RunFile]:
    run_id, _, number = notice.key.removeprefix(LEFT_FILE_KEY).partition(":")
    return RunFile.objects.filter(run=UUID(run_id), number=int(number))


def _page_of(notice: Notice) -> str:
    thread = [notice.workspace_id, notice.channel_id, notice.thread_ts]
    return f"{settings.PUBLIC_URL}{reverse('thread', args=thread)}"


# --- Sending -------------------------------------------------------------------------------------
def post(client: WebClient, notice: Notice, message: Message) -> str:
    """Send a message to the notice's destination; return its `ts` if Slack gives one.

    Raises what a Slack call raises.
    """
    if notice.destination == Destination.EPHEMERAL:
        return _show_to_user(client, notice, message)
    place = _place(client, notice)
    if message.file_name:
        return _upload(client, place, message)
    try:
        return _post(client, place, notice, message)
    except SlackApiError as error:
        refusal = failure_of(error)
        if refusal is None or not refusal.is_refusal:
            raise
        blocks = [*message.blocks, *message.below]
        if blocks and refusal.meaning is Meaning.REFUSED and not _is_too_long(error):
            text = _with_cost(message.text, blocks)
            return _post(client, place, notice, Message(text, part=message.part))
        if notice.destination == Destination.PAGE and notice.user_id:
            return _show_to_user(client, notice, message)
        raise


def _is_too_long(error: SlackApiError) -> bool:
    """Return whether the text itself was refused, so leaving out the blocks would not help."""
    return bool(error.response.get("error") == "msg_too_long")


def _place(client: WebClient, notice: Notice) -> _Place:
    if not _is_direct(notice.destination):
        return _Place(notice.channel_id, notice.thread_ts or None)
    try:
        opened = client.conversations_open(users=notice.user_id)
    except SlackApiError as error:
        refusal = failure_of(error)
        if refusal is None or refusal.meaning is not Meaning.REFUSED:
            raise
        # The installation is older than the scope `im:write`. Posting to a user's id works
        # without it, but searching doesn't.
        return _Place(notice.user_id, None)
    return _Place(str(opened["channel"]["id"]), None)


def _post(client: WebClient, place: _Place, notice: Notice, message: Message) -> str:
    posted = client.chat_postMessage(
        channel=place.channel,
        thread_ts=place.thread_ts,
        text=message.text,
        blocks=list(message.blocks) or None,
        attachments=[{"blocks": list(message.below)}] if message.below else None,
        metadata={"event_type": METADATA_TYPE, "event_payload": _payload(notice, message)},
        unfurl_links=False,
        unfurl_media=False,
    )
    return str(posted["ts"])


def _upload(client: WebClient, place: _Place, message: Message) -> str:
    uploaded = client.files_upload_v2(
        filename=message.file_name,
        title=message.title,
        content=message.content,
        channel=place.channel,
        thread_ts=place.thread_ts,
        initial_comment=message.text,
    )
    shares = (uploaded.get("file") or {}).get("shares") or {}
    shared = [where for places in shares.values() for where in places.get(place.channel, ())]
    return str(shared[0]["ts"]) if shared else ""


def _show_to_user(client: WebClient, notice: Notice, message: Message) -> str:
    shown = client.chat_postEphemeral(
        channel=notice.channel_id,
        user=notice.user_id,
        thread_ts=notice.thread_ts,
        text=message.text,
        blocks=list(message.blocks) or None,
    )
    return str(shown["message_ts"])


# --- Editing -------------------------------------------------------------------------------------
def edit(client: WebClient, notice: Notice) -> None:
    """Replace the notice's message with its present text. Doing it twice does no harm.

    Raises what a Slack call raises.
    """
    place = _place(client, notice)
    client.chat_update(
        channel=place.channel,
        ts=notice.message_ts,
        text=notice.text,
        blocks=list(notice.blocks),
        parse="none",  # unlike chat.postMessage, this method looks for names by default
    )


def delete(client: WebClient, notice: Notice) -> None:
    """Delete the notice's message. Raises what a Slack call raises."""
    client.chat_delete(channel=_place(client, notice).channel, ts=notice.message_ts)


def is_gone(error: SlackApiError) -> bool:
    """Return whether an edit or a deletion failed because there is no such message."""
    return bool(error.response.get("error") == "message_not_found")


# --- Searching -----------------------------------------------------------------------------------
def find(client: WebClient, notice: Notice, message: Message) -> str | None:
    """Return the `ts` of the message if an earlier attempt sent it.

    Raises what a Slack call raises.
    """
    place = _place(client, notice)
    where: dict[str, Any] = {"channel": place.channel}
    if place.thread_ts:
        where["ts"] = place.thread_ts
    read = client.conversations_replies if place.thread_ts else client.conversations_history
    try:
        pages = read(
            **where,
            oldest=f"{(notice.created_at - _CLOCK_SKEW).timestamp():.6f}",
            include_all_metadata=True,
            limit=_PAGE,
        )
        for page in pages:
            for found in page.get("messages") or ():
                if _is(notice, message, found):
                    return str(found["ts"])
    except SlackApiError as error:
        if error.response.get("error") not in _NO_SUCH_THREAD:
            raise
    return None


def _is(notice: Notice, message: Message, found: dict[str, Any]) -> bool:
    if message.file_name:
        files: Iterable[dict[str, Any]] = found.get("files") or ()
        return any(file.get("name") == message.file_name for file in files)
    metadata = found.get("metadata") or {}
    return bool(
        metadata.get("event_type") == METADATA_TYPE
        and metadata.get("event_payload") == _payload(notice, message)
    )


def _payload(notice: Notice, message: Message) -> dict[str, str | int]:
    payload: dict[str, str | int] = {"notice": str(notice.pk)}
    if message.part is not None:
        payload["part"] = message.part
    return payload
