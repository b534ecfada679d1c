"""Handle a person's post: record it first, then decide about it."""

from projects.hints import run_soon
from projects.models import SlackWorkspace
from slack_bot import installations
from slack_bot.events import Deleted, Edited, HomeOpened, Post, SessionStopped
from workflows.agent_sessions.showing import SHOW_SESSIONS
from workflows.home import openings
from workflows.intake import changes, mentions, recording, replies, stop_orders
from workflows.intake.deferral import left_to_a_sweep
from workflows.models import ERASED, Mention, ThreadReply
from workflows.requests import is_aside, is_stop_for_others


def receive(post: Post) -> None:
    """Record the post if it is for us, and act on it. This never calls Slack.

    Raises `django.db.Error` only if nothing was recorded. Once the post is recorded, this succeeds,
    and a sweep does what cannot be done now.
    """
    workspace = installations.find(post.installation)
    if workspace is None or post.user_id == workspace.bot_user_id:
        return
    if is_aside(post.text, workspace.bot_user_id):
        return
    is_for_us = post.is_direct and not post.is_reply  # nobody else reads a direct message
    if is_for_us or post.is_app_mention or post.tagged & {workspace.bot_user_id, post.bot_user_id}:
        mentions.admit_or_keep(_record(workspace, post))
    elif post.is_reply and not is_stop_for_others(post.text):
        _receive_reply(workspace, post)


def receive_change(change: Edited | Deleted) -> None:
    """Take the edit or deletion of a mention on which no work has begun."""
    workspace = installations.find(change.installation)
    if workspace is None:
        return
    text = change.text if isinstance(change, Edited) else None
    if text is not None and is_aside(text, workspace.bot_user_id):
        text = None  # the author took it back
    if text is None:
        changes.withdraw_run(workspace, change.channel_id, change.ts)
    found = Mention.objects.filter(
        workspace=workspace, channel_id=change.channel_id, ts=change.ts
    ).exclude(text=ERASED)
    mention = found.first()
    if mention is None:
        return
    if text is None:
        changes.withdraw(mention)
    else:
        changes.rewrite(mention, text)


def receive_opening(opened: HomeOpened) -> None:
    """Have a person's Home tab published. A worker finds out whether they may see it."""
    workspace = installations.find(opened.installation)
    if workspace is not None:
        openings.note_opened(workspace, opened.user_id)


def receive_session_stop(stopped: SessionStopped) -> None:
    """End the work of the person who clicked the stop button of the thread's agent session."""
    workspace = installations.find(stopped.installation)
    if workspace is None:
        return
    order = stop_orders.Order(
        workspace, stopped.channel_id, stopped.thread_ts, stopped.ts, stopped.user_id
    )
    stop_orders.obey_session_stop(order)
    run_soon(SHOW_SESSIONS)  # until then, Slack shows that it still runs


def _record(workspace: SlackWorkspace, post: Post) -> Mention:
    """Return the mention of this post, creating it if needed."""
    mention = Mention(
        workspace=workspace,
        team_id=workspace.team_id or workspace.enterprise_id,
        channel_id=post.channel_id,
        ts=post.ts,
        thread_ts=post.thread_ts,
        user_id=post.user_id,
        text=post.text,
        event_id=post.event_id,
    )
    if _is_external(workspace, post):
        return recording.record_outsiders(mention)
    return recording.record(mention)


def _receive_reply(workspace: SlackWorkspace, post: Post) -> None:
    """Record a reply that does not mention the bot, then decide whether it is for the bot.

    Replies by external authors are ignored, because they have no work here. If a reply was not for
    the bot, a redelivery changes nothing, but a mention that arrives later decides about it again.
    """
    if _is_external(workspace, post):
        return
    kept = replies.keep(
        ThreadReply(
            workspace=workspace,
            channel_id=post.channel_id,
            ts=post.ts,
            thread_ts=post.thread_ts,
            user_id=post.user_id,
            text=post.text,
        )
    )
    if kept.decided_at is not None:
        return
    mention = None
    with left_to_a_sweep("a reply", reply=str(kept.pk)):
        mention = replies.decide(kept)
    if mention is not None:
        mentions.admit_or_keep(mention)


def _is_external(workspace: SlackWorkspace, post: Post) -> bool:
    """Return whether the event itself says that the author is from another company.

    If the event names no team, the workflow checks the author's profile instead
    (`workflows.slack.access`). It also does so in Enterprise organizations, because their
    workspaces have different teams.
    """
    if workspace.enterprise_id or not post.author_team:
        return False
    return post.author_team != workspace.team_id
