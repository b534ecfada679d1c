"""Change a notice after it was claimed: replace its text, or withdraw its message.

Both change only the notice's row. A sender shows the text, or deletes the message, when the notice
is due. The last text wins if texts come faster than Slack accepts edits.
"""

from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from workflows.models import ERASED, Notice
from workflows.slack import posting
from workflows.slack.block_kit import Block

EVERY = timedelta(seconds=1)
"""The shortest time between two edits of a message."""
State = Notice.State


@transaction.atomic
def revise(
    notice: Notice, text: str, blocks: Sequence[Block] = (), *, every: timedelta = EVERY
) -> bool:
    """Replace the text of the notice's message; return whether a sender will show the new one.

    The new text waits until the previous one was shown for `every`. Nothing changes for a message
    that can't be edited, or that is withdrawn, given up or erased.
    """
    row = _lock(notice)
    if row.withdrawn or row.state == State.GIVEN_UP or row.text == ERASED:
        return False
    if (row.text, row.blocks) == (text, list(blocks)):
        return False
    if posting.is_posted(row) and not posting.is_editable(row):
        return False
    now = timezone.now()
    rows = Notice.objects.filter(pk=row.pk)
    rows.update(text=text, blocks=list(blocks), revision=F("revision") + 1)
    if row.state == State.SENT:
        next_edit = max(now, (row.edited_at or now) + every)
        rows.update(state=State.PENDING, attempts=0, next_attempt_at=next_edit)
    return True


@transaction.atomic
def withdraw(notice: Notice) -> None:
    """Let a sender delete the notice's message, or make sure that it is never sent."""
    row = _lock(notice)
    if row.withdrawn:
        return
    rows = Notice.objects.filter(pk=row.pk)
    if row.state == State.SENDING:  # its sender deletes it, or the next one if that sender died
        rows.update(withdrawn=True)
    elif posting.is_posted(row):
        rows.update(withdrawn=True, state=State.PENDING, attempts=0, next_attempt_at=timezone.now())
    else:
        rows.update(withdrawn=True, state=State.WITHDRAWN)


@transaction.atomic
def reopen(notice: Notice) -> None:
    """Make a withdrawn notice due again, as a new message."""
    now = timezone.now()
    withdrawn = Notice.objects.filter(pk=notice.pk, state=State.WITHDRAWN).exclude(text=ERASED)
    withdrawn.update(
        state=State.PENDING,
        withdrawn=False,
        message_ts="",
        sent_at=None,
        edited_at=None,
        attempts=0,
        next_attempt_at=now,
        created_at=now,
    )


def _lock(notice: Notice) -> Notice:
    return Notice.objects.select_for_update().get(pk=notice.pk)
