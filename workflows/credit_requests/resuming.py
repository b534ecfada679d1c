"""Let refused mentions run once there are credits, if their authors asked for some.

It does not matter where the credits come from: an approval, another top-up, a raised limit or a new
period. A mention runs at most once, because its request ends under a lock.
"""

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from quota import gate
from workflows import closing
from workflows.credit_requests import words
from workflows.credit_requests.asking import LAPSES_AFTER
from workflows.credit_requests.messages import tell_author, tell_deciders
from workflows.models import CreditRequest, Mention, Notice

State = CreditRequest.State


def waiting() -> QuerySet[CreditRequest]:
    """Return the requests that wait for credits, the oldest first."""
    return (
        CreditRequest.objects.filter(state__in=CreditRequest.WAITING)
        .select_related("mention__workspace__project__organization")
        .defer("mention__workspace__bot_token")
        .order_by("asked_at")
    )


def undelivered() -> QuerySet[CreditRequest]:
    """Return the waiting requests that Slack refused to show to those who decide."""
    refused = Notice.objects.filter(
        mention=OuterRef("mention"),
        kind=Notice.Kind.CREDIT_REQUEST,
        state=Notice.State.GIVEN_UP,
        thread_ts="",
    )
    return waiting().filter(Exists(refused))


def resume_or_end(request: CreditRequest) -> Mention | None:
    """Return the reopened mention if the gate now lets it start. The caller must admit it.

    End a request that waited too long. Raises `quota.gate.QuotaUnknown`; the request then waits.
    """
    if request.asked_at < timezone.now() - LAPSES_AFTER:
        _lapse(request.pk)
        return None
    mention = request.mention
    author = mention.workspace.distinct_id(mention.user_id)
    if gate.check(mention.project, to_start=True, distinct_id=author).limited:
        return None
    with transaction.atomic():
        held = _lock(request.pk)
        if held is None or held.mention_id != mention.pk:  # a later message took it over
            return None
        runs = closing.reopen(mention)
        _end(held, State.RESUMED if runs else State.DROPPED, timezone.now())
        if runs:
            tell_author(held, words.starting(held.decider_slack_user_id))
        if not held.decider_slack_user_id:
            tell_deciders(held, words.no_longer_needed() if runs else words.withdrawn())
    mention.refresh_from_db(fields=["state", "outcome", "lease_until"])
    return mention if runs else None


def drop(mentions: QuerySet[Mention]) -> None:
    """End the waiting requests of mentions whose author does not want them any more."""
    requests = CreditRequest.objects.filter(
        mention__in=mentions.order_by(), state__in=CreditRequest.WAITING
    )
    for request_id in list(requests.values_list("pk", flat=True)):
        with transaction.atomic():
            held = _lock(request_id)
            if held is not None:
                _end(held, State.DROPPED, timezone.now())
                tell_deciders(held, words.withdrawn())


def _lapse(request_id: UUID) -> None:
    with transaction.atomic():
        held = _lock(request_id)
        if held is not None:
            _end(held, State.LAPSED, timezone.now())
            tell_author(held, words.lapsed())
            tell_deciders(held, words.lapsed_for_deciders())


def _lock(request_id: UUID) -> CreditRequest | None:
    """Return the locked request, or None if it has ended."""
    found = CreditRequest.objects.select_for_update(of=("self",)).select_related("mention")
    return found.filter(pk=request_id, state__in=CreditRequest.WAITING).first()


def _end(request: CreditRequest, state: str, now: datetime) -> None:
    request.state, request.ended_at = state, now
    request.save(update_fields=["state", "ended_at"])
