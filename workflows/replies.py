"""Replies that do not mention the bot: kept first, then matched to what they are for.

Slack may deliver a reply before the mention that it follows, and two processes may handle both at
once. So a missing row never decides anything: a reply is committed before its mention is looked
for, and a mention before its replies are. The one that looks second finds the other. If a process
dies in between, sweeps decide the reply or the mention that it left.

What becomes of a reply by the author of the thread's latest request:

- While the request's task works or is still to be made, the reply is a follow-up.
- A word such as "stop" ends the work (`workflows.stopping.orders`).
- If the request was not answered (refused for lack of credits, failed, or without a text), the
  reply takes it up: both texts make a new request. Without credits nothing is said, because the
  thread knows why. It is told once more if the reason has changed.
- If the thread has ended otherwise, its author alone is told, once, how to go on.

Anybody else is answered only if they order a stop.
"""

from datetime import datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from coding_tasks.threads import active_task
from workflows import denials, follow_ups, notices, wording
from workflows.mention_types import OUT_OF_CREDITS, SAID_ALREADY
from workflows.models import ERASED, FollowUp, Mention, Notice, ThreadReply
from workflows.recovery.deferral import left_to_a_sweep
from workflows.requests import is_bare, is_countermanded, is_stop, texts_of

KEPT_FOR = timedelta(minutes=15)
"""Longer than Slack goes on delivering a mention: at once, after a minute, and after five."""
UNDECIDED_FOR = timedelta(days=1)
"""How long a reply waits for a sweep, if none ran or none could decide about it."""
TAKEN_UP_WITHIN = timedelta(days=45)
"""How old a request may be to be taken up by a reply: until after the next reset, and some days."""
NO_ACCESS = "no access"
_MOST_REQUESTS = 50
_LOOKS = 2


def keep(reply: ThreadReply) -> ThreadReply:
    """Return the row of an unsaved reply, creating it if needed."""
    kept, _ = ThreadReply.objects.get_or_create(
        workspace=reply.workspace,
        channel_id=reply.channel_id,
        ts=reply.ts,
        defaults={"thread_ts": reply.thread_ts, "user_id": reply.user_id, "text": reply.text},
    )
    kept.workspace = reply.workspace
    return kept


def decide(reply: ThreadReply) -> Mention | None:
    """Decide what a kept reply is for; return the mention it became, for the caller to admit.

    The row is deleted once the reply is recorded elsewhere. A reply that was recorded before, and
    is delivered again, is for nothing else.
    """
    row = ThreadReply.objects.filter(pk=reply.pk)
    if not row.exclude(text=ERASED).exists():
        return None  # erased, or decided by another process, since it was read
    if follow_ups.is_known(reply):
        row.delete()
        return None
    mention = None
    for _ in range(_LOOKS):  # the answer can change while we look
        mention = _as_mention(reply)
        if mention is not None or _as_follow_up(reply):
            row.delete()
            return mention
    # One that was for nobody may wait for a mention that came since: a sweep is to see it again.
    decided_at = None if _may_be_matched_soon(reply) else timezone.now()
    row.update(decided_at=decided_at)
    return None


def decide_for(mention: Mention) -> list[Mention]:
    """Decide again about the author's replies to a mention; return those that became mentions."""
    became = []
    for reply in _below(mention):
        reply.workspace = mention.workspace
        became.append(decide(reply))
    return [each for each in became if each is not None]


def has_followed(mention: Mention) -> bool:
    """Return whether the author's kept replies below the mention say something."""
    return any(not is_bare(each.text) for each in _below(mention))


def undecided(now: datetime) -> QuerySet[ThreadReply]:
    """Return the replies whose process died, or that wait for a mention to be decided."""
    return (
        ThreadReply.objects.filter(decided_at=None, received_at__lte=now - timedelta(seconds=3))
        .select_related("workspace__project__organization")
        .defer("workspace__bot_token")
        .order_by("received_at")
    )


def forget_old(now: datetime) -> None:
    """Delete the replies whose mention will not come any more."""
    old = ThreadReply.objects.filter(received_at__lte=now - KEPT_FOR)
    old.filter(Q(received_at__lte=now - UNDECIDED_FOR) | ~Q(decided_at=None)).delete()


def take_up_earlier(mention: Mention) -> None:
    """Let a mention take up the author's latest request in the thread if that was not answered.

    The thread must have no task: what a task works on is not asked for again.
    """
    earlier = _latest_request(mention)
    if mention.takes_up_id or earlier is None:
        return
    was_without_access = earlier.outcome.startswith(NO_ACCESS) and earlier.text != ERASED
    if not (_is_unanswered(earlier) or was_without_access):
        return
    try:
        with transaction.atomic():
            Mention.objects.filter(pk=mention.pk).update(takes_up=earlier)
    except IntegrityError:  # another message took it up
        return
    mention.takes_up = earlier


def _as_mention(reply: ThreadReply) -> Mention | None:
    """Return the reply's mention, creating it for an order to stop or a request taken up."""
    post = {"workspace": reply.workspace, "channel_id": reply.channel_id, "ts": reply.ts}
    if known := Mention.objects.filter(**post).first():
        return known
    task = active_task(reply.workspace, reply.channel_id, reply.thread_ts)
    request = _latest_request(reply)
    if is_stop(reply.text):
        is_about_work = task is not None or request is not None or _others_wait(reply)
        return _become_mention(reply, None) if is_about_work else None
    if task is not None or request is None or request.state in Mention.OPEN:
        return None
    if is_bare(reply.text) and not texts_of(request):
        return None  # the question what to do is still open
    if not _is_unanswered(request):
        _tell_how_to_go_on(request)
        return None
    if refusal := denials.refusal_for(reply, reply.workspace.project, to_start=True):
        _tell_if_news(request, denials.text(refusal))
        return None
    return _become_mention(reply, request)


def _as_follow_up(reply: ThreadReply) -> bool:
    """Hand the reply to its task, even one still to be made; return whether it has a task."""
    if is_stop(reply.text) or is_countermanded(reply):
        return False
    task = active_task(reply.workspace, reply.channel_id, reply.thread_ts)
    if task is not None and task.owner_slack_user_id != reply.user_id:
        return False
    request = _latest_request(reply)
    if request is not None and _is_order_to_come(request):
        return False
    if task is None and (request is None or _will_ask(request)):
        return False
    follow_up = FollowUp(
        workspace=reply.workspace,
        channel_id=reply.channel_id,
        ts=reply.ts,
        thread_ts=reply.thread_ts,
        user_id=reply.user_id,
        text=reply.text,
        addressed=False,
    )
    if task is not None:
        to_tell = follow_ups.record(follow_up, task.project)
    else:
        to_tell = follow_ups.record_early(follow_up)
    if to_tell:
        with left_to_a_sweep("a reply", follow_up=str(follow_up.pk)):
            follow_ups.tell(follow_up)
    return follow_ups.is_known(reply)


def _below(mention: Mention) -> list[ThreadReply]:
    kept = ThreadReply.objects.filter(
        workspace=mention.workspace_id,
        channel_id=mention.channel_id,
        thread_ts=mention.thread_ts,
        user_id=mention.user_id,
    ).exclude(text=ERASED)
    later = [each for each in kept if Decimal(each.ts) > Decimal(mention.ts)]
    return sorted(later, key=lambda each: Decimal(each.ts))


def _latest_request(message: ThreadReply | Mention) -> Mention | None:
    """Return the author's latest request in the thread before the message."""
    mentions = Mention.objects.filter(
        workspace=message.workspace_id,
        channel_id=message.channel_id,
        thread_ts=message.thread_ts,
        user_id=message.user_id,
    ).order_by("-received_at")[:_MOST_REQUESTS]
    earlier = [each for each in mentions if Decimal(each.ts) < Decimal(message.ts)]
    return max(earlier, key=lambda each: Decimal(each.ts), default=None)


def _others_wait(reply: ThreadReply) -> bool:
    return Mention.objects.filter(
        workspace=reply.workspace_id,
        channel_id=reply.channel_id,
        thread_ts=reply.thread_ts,
        state__in=Mention.OPEN,
    ).exists()


def _may_be_matched_soon(reply: ThreadReply) -> bool:
    """Return whether a request of the author that is under way may still need the reply."""
    request = _latest_request(reply)
    if request is None:
        return False
    taken_up = Mention.objects.filter(takes_up=request, state__in=Mention.OPEN)
    return request.state in Mention.OPEN or taken_up.exists()


def _is_unanswered(request: Mention) -> bool:
    """Return whether a request can be taken up again, which is possible once."""
    if request.text == ERASED or request.received_at < timezone.now() - TAKEN_UP_WITHIN:
        return False
    for_want_of_credits = request.outcome.startswith((OUT_OF_CREDITS, SAID_ALREADY))
    open_still = request.state in (Mention.State.ASKED, Mention.State.FAILED) or (
        request.state == Mention.State.REFUSED and for_want_of_credits
    )
    return open_still and not Mention.objects.filter(takes_up=request).exists()


def _will_ask(request: Mention) -> bool:
    """Return whether an undecided mention has no text, so its author will be asked for one.

    The next message is then the request itself, not an addition to it.
    """
    return request.state == Mention.State.RECEIVED and is_bare(request.text)


def _is_order_to_come(request: Mention) -> bool:
    """Return whether a message orders to stop and is not obeyed yet: what follows it has to wait.

    Taken for an addition to the work, it would end with the work.
    """
    return request.state == Mention.State.RECEIVED and is_stop(request.text)


def _become_mention(reply: ThreadReply, takes_up: Mention | None) -> Mention | None:
    """Return the reply's new mention; None if another message took the request up."""
    workspace = reply.workspace
    try:
        with transaction.atomic():
            mention, _ = Mention.objects.get_or_create(
                workspace=workspace,
                channel_id=reply.channel_id,
                ts=reply.ts,
                defaults={
                    "team_id": workspace.team_id or workspace.enterprise_id,
                    "thread_ts": reply.thread_ts,
                    "user_id": reply.user_id,
                    "text": reply.text,
                    "takes_up": takes_up,
                },
            )
    except IntegrityError:
        return None
    mention.workspace = workspace
    return mention


def _tell_if_news(request: Mention, words: str) -> None:
    """Say once why a request still cannot be taken up, unless the thread knows the reason."""
    said = denials.claimed_for(request)
    if said is not None and said.text == words and said.state != Notice.State.GIVEN_UP:
        return
    key = f"still-denied:{request.pk}"
    notices.send_soon(notices.claim(key, Notice.Kind.DENIAL, request, words))


def _tell_how_to_go_on(request: Mention) -> None:
    """Tell the author alone, once for each request, that plain replies start nothing here."""
    if Mention.objects.filter(takes_up=request).exists():
        return
    words = wording.thread_has_ended(request.user_id, bot_name=settings.BOT_NAME)
    notice = notices.claim(
        f"ended:{request.pk}", Notice.Kind.HINT, request, words, only_to_user=True
    )
    notices.send_soon(notice)
