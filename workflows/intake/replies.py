"""Replies that do not mention the bot: first recorded, then matched to a request or a task.

Slack may deliver a reply before the mention it follows, and two processes may handle them at the
same time. So a reply is committed before its mention is looked up, and a mention before its
replies are looked up: the process that looks second finds both. If a process dies in between, a
sweep decides about the reply or the mention that it left.

A reply by the author of the thread's latest request is treated as follows:

- While the request's task is working or is still to be made, the reply is a follow-up.
- A word such as "stop" ends the work (`workflows.intake.stop_orders`).
- If the request was not answered (refused for lack of credits, failed, or without a text), the
  reply takes it up: both texts together make a new request. If there are still no credits, the
  bot stays silent, unless the reason has changed since the thread was told.
- If the thread ended in another way, the author alone is told once how to go on.

Replies by anybody else are ignored, unless they order a stop.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.threads import active_task
from workflows import denials, notices, wording
from workflows.intake import follow_ups
from workflows.intake.deferral import left_to_a_sweep
from workflows.mention_types import OUT_OF_CREDITS, SAID_ALREADY
from workflows.models import ERASED, FollowUp, Mention, Notice, ThreadReply
from workflows.requests import (
    is_bare,
    is_go_on,
    is_stop,
    is_stopped_later,
    message_of,
    texts_of,
)

KEPT_FOR = timedelta(minutes=15)
"""Slack delivers a mention at once, after a minute and after five. This is longer."""
UNDECIDED_FOR = timedelta(days=1)
"""How long an undecided reply is kept, if no sweep ran or could decide about it."""
TAKEN_UP_WITHIN = timedelta(days=45)
"""The greatest age at which a request can be taken up: some days beyond the next reset."""
NO_ACCESS = "no access"
_MOST_REQUESTS = 50
_ROUNDS = 2


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
    """Decide what a recorded reply is for. If it became a mention, return it; the caller admits it.

    The reply's row is deleted once it is recorded as a mention or a follow-up.
    """
    row = ThreadReply.objects.filter(pk=reply.pk)
    if not row.exclude(text=ERASED).exists():
        return None  # it was erased, or decided by another process, after it was read
    if follow_ups.is_known(reply):
        row.delete()
        return None
    mention = None
    for _ in range(_ROUNDS):  # between the two looks, the thread may get or lose its task
        mention = _as_mention(reply)
        if mention is not None or _as_follow_up(reply):
            row.delete()
            return mention
    # A sweep looks again at a reply that an open request may still need.
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
    """Return whether the author has replied to the mention with a text."""
    return any(not is_bare(each.text) for each in _below(mention))


def undecided(now: datetime) -> QuerySet[ThreadReply]:
    """Return replies whose process died, and replies that wait for the decision on a mention."""
    return (
        ThreadReply.objects.filter(decided_at=None, received_at__lte=now - timedelta(seconds=3))
        .select_related("workspace__project__organization")
        .defer("workspace__bot_token")
        .order_by("received_at")
    )


def forget_old(now: datetime) -> None:
    """Delete replies that are so old that their mention will not arrive any more."""
    old = ThreadReply.objects.filter(received_at__lte=now - KEPT_FOR)
    old.filter(Q(received_at__lte=now - UNDECIDED_FOR) | ~Q(decided_at=None)).delete()


def take_up_earlier(mention: Mention) -> None:
    """Let a mention take up the author's latest request in the thread, if it was not answered.

    Call this only if the thread has no task: a task already works on what was asked.
    """
    if mention.takes_up_id or not mention.is_reply:
        return
    earlier = _latest_request(mention)
    if earlier is None:
        return
    was_without_access = earlier.outcome.startswith(NO_ACCESS) and earlier.text != ERASED
    if not (_is_unanswered(earlier) or was_without_access):
        return
    try:
        with transaction.atomic():
            if not _lock_as_it_was(earlier):
                return
            taken = {"takes_up": earlier, **taken_over(earlier)}
            Mention.objects.filter(pk=mention.pk).update(**taken)
    except IntegrityError:  # another message took it up
        return
    for name, value in taken.items():
        setattr(mention, name, value)


def go_on(mention: Mention) -> None:
    """Let a mention that only says "continue" go on with the author's work that was stopped.

    Call this only if the thread has no task.
    """
    if mention.repeats_id or not is_go_on(mention.text):
        return
    run = stopped_run(mention)
    if run is None:
        return
    request = message_of(run)
    taken_up = request if isinstance(request, Mention) else None
    try:
        with transaction.atomic():
            Mention.objects.filter(pk=mention.pk).update(
                repeats=run, goes_on=True, takes_up=taken_up
            )
    except IntegrityError:  # a click was first
        return
    mention.repeats, mention.goes_on, mention.takes_up = run, True, taken_up


def stopped_run(message: ThreadReply | Mention) -> TaskRun | None:
    """Return the run to go on with: the author's work in the thread that was stopped last."""
    tasks = CodingTask.objects.filter(
        workspace=message.workspace_id, channel_id=message.channel_id, thread_ts=message.thread_ts
    )
    task = tasks.order_by("-created_at").first()
    if (
        task is None
        or task.state != CodingTask.State.STOPPED
        or task.owner_slack_user_id != message.user_id
    ):
        return None
    since = timezone.now() - TAKEN_UP_WITHIN
    stopped = task.runs.filter(
        state=TaskRun.State.STOPPED, repeated_by=None, created_at__gt=since
    ).exclude(request=ERASED)
    run = stopped.order_by("created_at").last()
    if run is not None:
        run.task = task
    return run


def _as_mention(reply: ThreadReply) -> Mention | None:
    """Return the reply's mention, creating it if the reply orders a stop or takes up a request."""
    post = {"workspace": reply.workspace, "channel_id": reply.channel_id, "ts": reply.ts}
    if known := Mention.objects.filter(**post).first():
        return known
    task = active_task(reply.workspace, reply.channel_id, reply.thread_ts)
    request = _latest_request(reply)
    if is_stop(reply.text):
        is_about_work = task is not None or request is not None or _anybody_waits(reply)
        return _become_mention(reply, None) if is_about_work else None
    if task is not None or request is None or request.state in Mention.OPEN:
        return None
    if is_go_on(reply.text) and stopped_run(reply):
        return _become_mention(reply, None)  # `go_on` finds the run when it is decided about
    if is_bare(reply.text) and not texts_of(request):
        return None  # the bot's question what to do is still unanswered
    if not _is_unanswered(request):
        _tell_how_to_go_on(request)
        return None
    project = reply.workspace.project_in(reply.channel_id)
    if refusal := denials.refusal_for(reply, project, to_start=True):
        _tell_if_news(request, denials.text(refusal))
        return None
    return _become_mention(reply, request)


def _as_follow_up(reply: ThreadReply) -> bool:
    """Record the reply as a follow-up if it is one, even of a future task; return whether it is."""
    if is_stop(reply.text) or is_stopped_later(reply):
        return False
    task = active_task(reply.workspace, reply.channel_id, reply.thread_ts)
    if task is not None and not task.accepts_reply(reply.user_id, reply.ts):
        return False
    request = _latest_request(reply)
    if request is not None and _is_pending_stop(request):
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
        to_signal = follow_ups.record(follow_up, task)
    else:
        to_signal = follow_ups.record_early(follow_up)
    if to_signal:
        with left_to_a_sweep("a reply", follow_up=str(follow_up.pk)):
            follow_ups.signal(follow_up)
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


def _anybody_waits(reply: ThreadReply) -> bool:
    return Mention.objects.filter(
        workspace=reply.workspace_id,
        channel_id=reply.channel_id,
        thread_ts=reply.thread_ts,
        state__in=Mention.OPEN,
    ).exists()


def _may_be_matched_soon(reply: ThreadReply) -> bool:
    """Return whether an open request of the author may still need the reply."""
    request = _latest_request(reply)
    if request is None:
        return False
    taken_up = Mention.objects.filter(takes_up=request, state__in=Mention.OPEN)
    return request.state in Mention.OPEN or taken_up.exists()


def can_be_repeated(request: Mention, run: TaskRun | None) -> bool:
    """Return whether a click can start a request again. `run` is the run that answered it, if any.

    Call it in the transaction that takes the request up.
    """
    if request.text == ERASED or request.received_at < timezone.now() - TAKEN_UP_WITHIN:
        return False
    # The thread is told of a failed run before its mention is closed.
    ended = request.state in (Mention.State.FAILED, Mention.State.STOPPED)
    return (ended or run is not None) and _lock_as_it_was(request)


def _is_unanswered(request: Mention) -> bool:
    """Return whether a request can be taken up. Each can be taken up once."""
    if request.text == ERASED or request.received_at < timezone.now() - TAKEN_UP_WITHIN:
        return False
    lacked_credits = request.outcome.startswith((OUT_OF_CREDITS, SAID_ALREADY))
    needs_answer = request.state in (Mention.State.ASKED, Mention.State.FAILED) or (
        request.state == Mention.State.REFUSED and lacked_credits
    )
    return needs_answer and not Mention.objects.filter(takes_up=request).exists()


def _will_ask(request: Mention) -> bool:
    """Return whether the bot will ask the author what to do, because the mention has no text.

    The author's next message is then the request itself, not an addition to it.
    """
    return request.state == Mention.State.RECEIVED and is_bare(request.text)


def _is_pending_stop(request: Mention) -> bool:
    """Return whether a message orders a stop that is still to be carried out.

    Replies after it have to wait. As follow-ups of the work they would end with it.
    """
    return request.state == Mention.State.RECEIVED and is_stop(request.text)


def _become_mention(reply: ThreadReply, takes_up: Mention | None) -> Mention | None:
    """Return the reply's new mention.

    Return None if the reply was erased, or if another message took up the request.
    """
    workspace = reply.workspace
    try:
        with transaction.atomic():
            row = ThreadReply.objects.select_for_update().filter(pk=reply.pk)
            if not row.exclude(text=ERASED).exists():
                return None
            if takes_up is not None and not _lock_as_it_was(takes_up):
                return None
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
                    **(taken_over(takes_up) if takes_up is not None else {}),
                },
            )
    except IntegrityError:
        return None
    mention.workspace = workspace
    return mention


def taken_over(request: Mention) -> dict[str, Any]:
    """Return the fields that a message takes over from the request it takes up: what it repeats.

    If the request's own run failed, that is the run to repeat.
    """
    if request.repeats_id is None:
        return {}
    own = {"task__workflow_id": request.workflow_id, "message_ts": request.ts}
    failed = TaskRun.objects.filter(**own).first() if request.workflow_id else None
    if failed is None:  # a run is repeated by one mention only
        Mention.objects.filter(pk=request.pk).update(repeats=None)
    return {"repeats": failed or request.repeats, "goes_on": request.goes_on}


def _lock_as_it_was(request: Mention) -> bool:
    """Lock a request that is to be taken up; return False if its state has changed."""
    as_it_was = Mention.objects.filter(pk=request.pk, state=request.state)
    return as_it_was.select_for_update().exists()


def _tell_if_news(request: Mention, words: str) -> None:
    """Say once why a request still cannot be taken up, unless the thread was told that reason."""
    said = denials.claimed_for(request)
    if said is not None and said.text == words and said.state != Notice.State.GIVEN_UP:
        return
    key = f"still-denied:{request.pk}"
    notices.send_soon(notices.claim(key, Notice.Kind.DENIAL, request, words))


def _tell_how_to_go_on(request: Mention) -> None:
    """Tell the author alone, once for each request, that replies here have no effect."""
    if Mention.objects.filter(takes_up=request).exists():
        return
    words = wording.thread_has_ended(request.user_id, bot_name=settings.BOT_NAME)
    notice = notices.claim(
        f"ended:{request.pk}", Notice.Kind.HINT, request, words, only_to_user=True
    )
    notices.send_soon(notice)
