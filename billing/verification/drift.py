"""Find and repair running totals that differ from the ledger, while booking continues.

The ledger grows forever, so it isn't added up every minute. A *checkpoint* has the sum of what was
booked on each account before an instant. Only what was booked since then is added up. Old rows that
were changed or deleted are found by `billing.verification.rotation`, which reads whole accounts.
"""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import F, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from billing import metrics
from billing.consistent_read import consistent_read
from billing.models import (
    AccountGroup,
    CheckpointSum,
    LedgerCheckpoint,
    UsageEvent,
    UsageTotal,
)
from billing.verification.rebuild import rebuild

SURELY_COMMITTED = timedelta(minutes=1)
"""After this time, a booking is assumed to be committed. A booking takes seconds. If one takes
longer, or a host's clock is slow, an account is added up again without need."""

_EVER = datetime.min.replace(tzinfo=UTC)
_SUMS = {
    "credits": Coalesce(Sum("credits_micro"), 0),
    "debited": Coalesce(Sum("debited_micro", filter=~Q(group="")), 0),
}

Sums = tuple[int, int]
"""Micro-credits used, and micro-credits debited by gateway groups."""

logger = logging.getLogger(__name__)


def repair_drift(now: datetime) -> int:
    """Rebuild the accounts whose totals differ from the ledger, and return how many there were.

    The cost depends on the number of accounts and on what was booked in the last minutes, not on
    the length of the ledger.
    """
    _advance_checkpoint(now - SURELY_COMMITTED)
    repaired = 0
    for pk in sorted(drifted()):
        try:
            repaired += _repair_totals(pk)
            _correct_checkpoint(pk)
        except Exception:
            logger.exception("account %d could not be compared with the ledger", pk)
    return repaired


def _repair_totals(pk: int) -> bool:
    """Rebuild the account if its totals differ from the ledger. Return whether they did."""
    with consistent_read():
        differs = _ledger_sums(pk) != _stored_sums(pk)
    if differs:
        rebuild(pk)
        logger.error("the totals of account %d differed from the ledger and were rebuilt", pk)
        metrics.REPAIRS.inc()
    return differs


def drifted() -> set[int]:
    """Return the accounts whose totals differ from the checkpoint plus what was booked since."""
    with consistent_read():
        before, sums = _checkpoint()
        for pk, credits, debited in _by_account(_booked(before, None)):
            had = sums.get(pk, (0, 0))
            sums[pk] = had[0] + credits, had[1] + debited
        stored = _stored_by_account()
    return {
        pk for pk in sums.keys() | stored.keys() if sums.get(pk, (0, 0)) != stored.get(pk, (0, 0))
    }


def _checkpoint() -> tuple[datetime, dict[int, Sums]]:
    checkpoint = LedgerCheckpoint.objects.filter(pk=1).first()
    rows = CheckpointSum.objects.values_list("account_id", "credits_micro", "debited_micro")
    sums = {pk: (credits, debited) for pk, credits, debited in rows}
    return checkpoint.booked_before if checkpoint else _EVER, sums


def _advance_checkpoint(until: datetime) -> None:
    """Add what was booked before an instant to the checkpoint."""
    checkpoint = LedgerCheckpoint.objects.filter(pk=1).first()
    before = checkpoint.booked_before if checkpoint else _EVER
    if until <= before:
        return
    # Sum before taking the lock: the first time, this is the whole ledger.
    added = list(_by_account(_booked(before, until)))
    with transaction.atomic():
        if _locked_checkpoint() != before:
            return  # another process was faster
        ids = [pk for pk, _, _ in added]
        known = {row.account_id: row for row in CheckpointSum.objects.filter(account__in=ids)}
        rows = [known.get(pk) or CheckpointSum(account_id=pk) for pk in ids]
        for row, (_, credits, debited) in zip(rows, added, strict=True):
            row.credits_micro += credits
            row.debited_micro += debited
        _write(rows)
        LedgerCheckpoint.objects.update_or_create(pk=1, defaults={"booked_before": until})


def _correct_checkpoint(pk: int) -> None:
    """Set the account's sums in the checkpoint to those of the ledger."""
    before, _ = _checkpoint()
    [(_, credits, debited)] = list(_by_account(_booked(None, before).filter(account=pk))) or [
        (pk, 0, 0)
    ]
    with transaction.atomic():
        if _locked_checkpoint() == before:
            _write([CheckpointSum(account_id=pk, credits_micro=credits, debited_micro=debited)])


def _locked_checkpoint() -> datetime:
    checkpoint = LedgerCheckpoint.objects.select_for_update().filter(pk=1).first()
    return checkpoint.booked_before if checkpoint else _EVER


def _write(rows: Iterable[CheckpointSum]) -> None:
    CheckpointSum.objects.bulk_create(
        rows,
        batch_size=500,
        update_conflicts=True,
        unique_fields=["account"],
        update_fields=["credits_micro", "debited_micro"],
    )


def _booked(since: datetime | None, until: datetime | None) -> QuerySet[UsageEvent]:
    rows = UsageEvent.objects.filter(account__isnull=False).order_by()
    if since is not None and since > _EVER:
        rows = rows.filter(booked_at__gte=since)
    return rows if until is None else rows.filter(booked_at__lt=until)


def _by_account(rows: QuerySet[UsageEvent]) -> Iterable[tuple[int, int, int]]:
    # Without `+ 0`, SQLite would use the column's index and read the whole ledger.
    return rows.annotate(of=F("account_id") + 0).values_list("of").annotate(**_SUMS)


def _ledger_sums(pk: int) -> Sums:
    found = UsageEvent.objects.filter(account=pk).order_by().aggregate(**_SUMS)
    return found["credits"], found["debited"]


def _stored_sums(pk: int) -> Sums:
    return _stored_by_account(pk).get(pk, (0, 0))


def _stored_by_account(pk: int | None = None) -> dict[int, Sums]:
    """Return the sums of the stored totals and group bookings, for one account or all."""
    chosen = Q() if pk is None else Q(account=pk)
    used = UsageTotal.objects.filter(chosen).order_by().values_list("account_id")
    booked = AccountGroup.objects.filter(chosen).order_by().values_list("account_id")
    usage = dict(used.annotate(micro=Sum("usage_micro")))
    bookings = dict(booked.annotate(micro=Sum("booked_micro")))
    return {pk: (usage.get(pk, 0), bookings.get(pk, 0)) for pk in usage.keys() | bookings.keys()}
