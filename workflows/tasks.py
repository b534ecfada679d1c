"""Celery's part: sending what rows say is to be sent, and sweeping up what nobody finished.

Every task may run twice, at once or not at all: the rows decide, and the next sweep comes within
seconds. So none of them is retried by Celery, and a flushed broker loses nothing.
"""

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import structlog
from celery import shared_task
from django.utils import timezone

from workflows import admission, client, credit_notices, follow_ups, notices
from workflows.models import FollowUp, Notice

log = structlog.get_logger(__name__)

_BATCH = 200
_BUDGET = 30.0
"""Seconds after which a sweep leaves the rest to the next one."""
_EXPIRES = 5
"""Seconds for which a sweep is worth starting: then the next is due anyway."""
_PATIENCE = 3
"""Failures to reach Temporal after which a sweep stops: every one takes its time limit."""
_GRACE = timedelta(seconds=3)
"""How long a follow-up is left to the request that recorded it."""


@shared_task
def deliver_notice(notice_id: str) -> None:
    """Send one notice, if it is due and nobody else is at it."""
    notice = Notice.objects.filter(pk=notice_id).first()
    if notice is not None:
        notices.deliver(notice)


@shared_task(expires=_EXPIRES)
def deliver_pending_denials() -> None:
    """Send whatever notice is due: denials, and all else the bot owes a thread."""
    _sweep(notices.due(timezone.now())[:_BATCH], notices.deliver)


@shared_task(expires=_EXPIRES)
def announce_credits() -> None:
    """Tell who wants to hear it that credits run low, or that there are some again."""
    for notice in credit_notices.claim_new(timezone.now()):
        notices.deliver(notice)


@shared_task(expires=_EXPIRES)
def start_pending_mentions() -> None:
    """Decide about the mentions whose request died, or came while Temporal was down."""
    _sweep(admission.waiting(timezone.now())[:_BATCH], admission.admit)


@shared_task(expires=_EXPIRES)
def deliver_pending_follow_ups() -> None:
    """Tell the workflows of the follow-ups that they were not told of when they were recorded."""
    unsignalled = FollowUp.objects.filter(
        state=FollowUp.State.RECEIVED, received_at__lte=timezone.now() - _GRACE
    )
    _sweep(unsignalled.order_by("received_at")[:_BATCH], follow_ups.tell)


def _sweep(rows: Iterable[Any], handle: Callable[[Any], None]) -> None:
    """Handle each row; one that fails is left to the next sweep and does not stop the others."""
    deadline = time.monotonic() + _BUDGET
    unreachable = 0
    for row in rows:
        if unreachable == _PATIENCE or time.monotonic() > deadline:
            break
        try:
            handle(row)
        except client.TemporalUnavailable as error:
            unreachable += 1
            log.warning("temporal is unavailable", row=str(row.pk), error=str(error))
        except Exception:
            log.exception("a sweep failed on a row", row=str(row.pk))
