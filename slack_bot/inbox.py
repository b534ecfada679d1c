"""What a post of a person leads to: a record first, then whatever is decided about it."""

import structlog
from django.conf import settings
from django.db import transaction

from coding_tasks.outages import STORES_AWAY, in_one_line
from coding_tasks.threads import active_task
from projects.models import SlackWorkspace
from slack_bot import installations
from slack_bot.events import Post
from workflows import admission, closing, follow_ups, notices, wording
from workflows.client import TemporalUnavailable
from workflows.models import FollowUp, Mention, Notice

log = structlog.get_logger(__name__)


def receive(post: Post) -> None:
    """Record the post if it is for us, and act on it. Calls Slack for nothing.

    Raises `django.db.Error` only when nothing was kept. Once something is, this succeeds: what
    cannot be done now is done by a sweep.
    """
    workspace = installations.find(post.installation)
    if workspace is None or post.user_id == workspace.bot_user_id:
        return
    if post.is_app_mention or post.tagged & {workspace.bot_user_id, post.bot_user_id}:
        _receive_mention(workspace, post)
    elif post.is_reply:
        _receive_reply(workspace, post)


def _receive_mention(workspace: SlackWorkspace, post: Post) -> None:
    mention = _record(workspace, post)
    if mention.state != Mention.State.RECEIVED:
        return
    try:
        admission.admit(mention)
    except TemporalUnavailable as error:
        log.warning("temporal is unavailable", mention=str(mention.pk), error=str(error))
    except STORES_AWAY as error:
        log.warning(
            "a mention waits for a store", mention=str(mention.pk), error=in_one_line(error)
        )
    except Exception:
        # The row is a promise that a sweep keeps: to fail now would only make Slack repeat itself.
        log.exception("a mention was kept for later", mention=str(mention.pk))


def _record(workspace: SlackWorkspace, post: Post) -> Mention:
    """Return the mention of this post, written now unless a copy of the post was here before."""
    is_external = _is_external(workspace, post)
    with transaction.atomic():
        mention, created = Mention.objects.get_or_create(
            workspace=workspace,
            channel_id=post.channel_id,
            ts=post.ts,
            defaults={
                "team_id": workspace.team_id or workspace.enterprise_id,
                "thread_ts": post.thread_ts,
                "user_id": post.user_id,
                "text": post.text,
                "event_id": post.event_id,
            },
        )
        if created and is_external:
            outcome = "the author is of another organization"
            closing.conclude(mention, Mention.State.REFUSED, outcome)
            mention.state = Mention.State.REFUSED
            words = wording.no_access_for_outsiders(mention.user_id, bot_name=settings.BOT_NAME)
            key = f"no-access:{mention.pk}"
            notices.send_soon(notices.claim(key, Notice.Kind.NO_ACCESS, mention, words))
    mention.workspace = workspace
    return mention


def _receive_reply(workspace: SlackWorkspace, post: Post) -> None:
    """Take a reply that does not name us: it is for us only from the owner of the thread's task.

    That is the author of its mention already while the task is still to be made.
    """
    task = active_task(workspace, post.channel_id, post.thread_ts)
    if task is not None and task.owner_slack_user_id != post.user_id:
        return
    reply = FollowUp(
        workspace=workspace,
        channel_id=post.channel_id,
        ts=post.ts,
        thread_ts=post.thread_ts,
        user_id=post.user_id,
        text=post.text,
        addressed=False,
    )
    if task is not None:
        to_tell = follow_ups.record(reply, task.project)
    else:
        to_tell = follow_ups.record_early(reply)
    if not to_tell:
        return
    try:
        follow_ups.tell(reply)
    except TemporalUnavailable as error:
        log.warning("temporal is unavailable", follow_up=str(reply.pk), error=str(error))
    except STORES_AWAY as error:
        log.warning("a reply waits for a store", follow_up=str(reply.pk), error=in_one_line(error))
    except Exception:  # kept, as above
        log.exception("a reply was kept for later", follow_up=str(reply.pk))


def _is_external(workspace: SlackWorkspace, post: Post) -> bool:
    """Tell an author from another company in a shared channel (Slack Connect).

    In an Enterprise organization the author may be of a sister workspace: the payload does not
    say, so access is judged by the profile, in the workflow.
    """
    return not workspace.enterprise_id and not post.author_teams <= {workspace.team_id}
