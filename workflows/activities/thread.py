"""Activities for access, for notices in the thread, and for the end of a mention."""

from dataclasses import dataclass

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from workflows import notices, unfinished
from workflows.activities import rows
from workflows.closing import close, close_as_anothers, close_joined
from workflows.mention_types import ANOTHERS_TASK, MentionRef
from workflows.models import Mention, Notice
from workflows.slack import access
from workflows.slack.client import Failure, failure_of


@dataclass(frozen=True)
class AccessAnswer:
    """Whether the author may use the bot, and if not, the notice that says so."""

    notice_id: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class NoticeRef:
    """A notice to deliver."""

    notice_id: str


@dataclass(frozen=True)
class Delivered:
    """Whether the message was delivered, in the thread or elsewhere. If not, it was given up."""

    sent: bool


@dataclass(frozen=True)
class Closing:
    """How a mention ends."""

    mention_id: str
    state: str
    outcome: str


@dataclass(frozen=True)
class Closed:
    """Whether this call ended the mention. If not, an earlier one did."""

    now: bool


@dataclass(frozen=True)
class Breakdown:
    """The notice that tells the thread that something went wrong. None if it was stopped."""

    notice_id: str | None


class ThreadActivities:
    """The conversation with the thread. Temporal repeats failed calls to Slack."""

    @activity.defn
    def check_access(self, about: MentionRef) -> AccessAnswer:
        """Ask Slack who the author is, and claim a notice if they may not use the bot."""
        mention = rows.mention(about.mention_id)
        try:
            answer = access.check(mention.workspace, mention.user_id)
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            raise _to_temporal(failure) from error
        if answer is access.Access.GRANTED:
            return AccessAnswer()
        notice = notices.claim(
            f"no-access:{mention.pk}",
            Notice.Kind.NO_ACCESS,
            mention,
            access.refusal_text(mention.workspace, answer, mention.user_id),
        )
        return AccessAnswer(str(notice.pk), f"no access: {answer.value}")

    @activity.defn
    def deliver_notice(self, ref: NoticeRef) -> Delivered:
        """Send a notice. Fails until the notice is sent or given up, by this or another process."""
        notice = Notice.objects.get(pk=ref.notice_id)
        notices.deliver(notice)
        notice.refresh_from_db(fields=["state", "error"])
        if notice.state in Notice.UNSENT:
            raise ApplicationError(
                f"still to send: {notice.error}",
                type="StillOwed",
                category=ApplicationErrorCategory.BENIGN,  # somebody else is sending it just now
            )
        return Delivered(sent=notice.state == Notice.State.SENT)

    @activity.defn
    def close_mention(self, closing: Closing) -> Closed:
        """Record how the mention ended, unless that is recorded already."""
        if closing.state == Mention.State.FORWARDED:
            return Closed(close_joined(closing.mention_id, closing.outcome))
        if closing.outcome == ANOTHERS_TASK:
            return Closed(close_as_anothers(closing.mention_id))
        return Closed(close(closing.mention_id, closing.state, closing.outcome))

    @activity.defn
    def break_down(self, closing: Closing) -> Breakdown:
        """End a mention and its task after a failure that nothing else handles, and say so."""
        mention = rows.mention(closing.mention_id)
        workflow_id = activity.info().workflow_id or ""
        notice = unfinished.end(mention, workflow_id, closing.state, closing.outcome)
        return Breakdown(str(notice.pk) if notice else None)


def _to_temporal(failure: Failure) -> ApplicationError:
    return ApplicationError(
        f"Slack refused: {failure.error}",
        type="SlackRefused" if failure.is_permanent else "SlackUnavailable",
        non_retryable=failure.is_permanent,
    )
