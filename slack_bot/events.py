"""Read event payloads: what a person wrote, changed or deleted, or the end of an installation.

https://docs.slack.dev/apis/events-api/ describes the envelope. This code does not trust its shape.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from slack_bot.payloads import first, identifier, mapping, moment, timestamp
from workflows.slack import messages

_POSTS = {"app_mention", "message"}


@dataclass(frozen=True, slots=True)
class Installation:
    """Which installation of the app a payload is for."""

    team_id: str
    enterprise_id: str
    is_org_wide: bool


@dataclass(frozen=True, slots=True)
class Post:
    """What a person wrote. Slack sends it as `message`, as `app_mention`, or as both."""

    installation: Installation
    event_id: str
    channel_id: str
    ts: str
    thread_ts: str
    """The root of the thread; `ts` itself at top level."""
    user_id: str
    author_team: str
    """The author's own team. If it is empty, their profile decides about access later."""
    text: str
    is_app_mention: bool
    tagged: frozenset[str]
    """The users mentioned in the text."""
    bot_user_id: str
    """The bot's own user, if the envelope names it."""
    is_direct: bool = False
    """Whether it is a direct message to the bot."""

    @property
    def is_reply(self) -> bool:
        """Whether it is a reply in a thread, not the root of one."""
        return self.thread_ts != self.ts


@dataclass(frozen=True, slots=True)
class Uninstalled:
    """The app was removed, or its bot token revoked."""

    installation: Installation
    at: datetime | None
    """When that happened, to the second, if Slack says."""


@dataclass(frozen=True, slots=True)
class Edited:
    """A person changed what they had written."""

    installation: Installation
    channel_id: str
    ts: str
    text: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """A message was deleted."""

    installation: Installation
    channel_id: str
    ts: str


@dataclass(frozen=True, slots=True)
class HomeOpened:
    """A person opened the app's Home tab."""

    installation: Installation
    user_id: str


@dataclass(frozen=True, slots=True)
class SessionStopped:
    """A person clicked the stop button that Slack shows for an agent session."""

    installation: Installation
    channel_id: str
    thread_ts: str
    user_id: str
    ts: str
    """When they clicked. A redelivery has the same time."""


Report = Post | Edited | Deleted | HomeOpened | SessionStopped | Uninstalled


def read(payload: dict[str, Any]) -> Report | None:
    """Return what a payload of the Events API reports, or None if we ignore it. Never raises."""
    event = mapping(payload.get("event"))
    if payload.get("type") != "event_callback":
        return None
    kind = event.get("type")
    if kind == "app_uninstalled" or (kind == "tokens_revoked" and _bot_token_revoked(event)):
        return Uninstalled(_installation(payload), moment(payload.get("event_time")))
    if kind == "app_home_opened":
        return _home_opened(payload, event)
    if kind == "agent_session_stopped":
        return _session_stopped(payload, event)
    if isinstance(kind, str) and kind in _POSTS and _is_news(event):
        return _post(payload, event)
    if kind == "message" and event.get("subtype") in ("message_changed", "message_deleted"):
        return _change(payload, event)
    return None


def _bot_token_revoked(event: dict[str, Any]) -> bool:
    return bool(mapping(event.get("tokens")).get("bot"))


def _is_news(event: dict[str, Any]) -> bool:
    """Return whether a person wrote this just now.

    An `app_mention` caused by an edit carries `edited`. Its post was handled when it was written.
    """
    return messages.is_written_by_a_person(event) and not event.get("edited")


def _home_opened(payload: dict[str, Any], event: dict[str, Any]) -> HomeOpened | None:
    """Return the opening of the Home tab, or None if the event is about the Messages tab.

    https://docs.slack.dev/reference/events/app_home_opened/
    """
    user_id = identifier(event.get("user"))
    if not user_id or event.get("tab") != "home":
        return None
    return HomeOpened(_installation(payload), user_id)


def _session_stopped(payload: dict[str, Any], event: dict[str, Any]) -> SessionStopped | None:
    """Return the click on Slack's own stop button.

    https://docs.slack.dev/reference/events/agent_session_stopped/
    """
    stopped = SessionStopped(
        _installation(payload),
        channel_id=identifier(event.get("channel")),
        thread_ts=timestamp(event.get("thread_ts")),
        user_id=identifier(event.get("user")),
        ts=timestamp(event.get("event_ts")),
    )
    whole = stopped.channel_id and stopped.thread_ts and stopped.user_id and stopped.ts
    return stopped if whole else None


def _change(payload: dict[str, Any], event: dict[str, Any]) -> Edited | Deleted | None:
    """Return the edit or deletion of a person's message.

    A deleted message that has replies stays as a `tombstone`:
    https://docs.slack.dev/reference/events/message/message_changed/
    """
    message = mapping(event.get("message"))
    is_gone = event["subtype"] == "message_deleted" or message.get("subtype") == "tombstone"
    channel_id = identifier(event.get("channel"))
    ts = timestamp(event.get("deleted_ts") or message.get("ts"))
    if not channel_id or not ts:
        return None
    if is_gone:
        return Deleted(_installation(payload), channel_id, ts)
    if not messages.is_written_by_a_person(message):
        return None
    return Edited(_installation(payload), channel_id, ts, messages.text_of(message))


def _post(payload: dict[str, Any], event: dict[str, Any]) -> Post | None:
    authorization = first(payload.get("authorizations"))
    bot_user_id = identifier(authorization.get("user_id")) if authorization.get("is_bot") else ""
    channel_id = identifier(event.get("channel"))
    user_id = identifier(event.get("user"))
    ts = timestamp(event.get("ts"))
    thread_ts = timestamp(event.get("thread_ts") or ts)
    if not (channel_id and user_id and ts and thread_ts) or user_id == bot_user_id:
        return None
    written = messages.text_of(event)
    return Post(
        installation=_installation(payload),
        event_id=identifier(payload.get("event_id")),
        channel_id=channel_id,
        ts=ts,
        thread_ts=thread_ts,
        user_id=user_id,
        # `source_team` and `team` may name the workspace that hosts a shared channel.
        author_team=identifier(event.get("user_team"))
        or identifier(mapping(event.get("user_profile")).get("team")),
        text=written,
        is_app_mention=event.get("type") == "app_mention",
        tagged=messages.tagged(written),
        bot_user_id=bot_user_id,
        is_direct=event.get("channel_type") == "im",
    )


def _installation(payload: dict[str, Any]) -> Installation:
    """Return the installation of the first authorization, or else that of the payload itself."""
    authorization = first(payload.get("authorizations"))
    source = authorization or payload
    return Installation(
        team_id=identifier(source.get("team_id")),
        enterprise_id=identifier(source.get("enterprise_id")),
        is_org_wide=source.get("is_enterprise_install") is True,
    )
