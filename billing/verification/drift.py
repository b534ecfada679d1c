"""Running totals that are not what the ledger says, found while everything goes on.

The ledger grows for ever, so it is not added up each minute. A *checkpoint* keeps, for each
account, the sum of what was booked before an instant; only what was booked since is added up. A
row of the past that was changed or deleted is found by `billing.verification.rotation`, which reads
whole accounts.
"""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from billing import metrics
from billing.models import (
    AccountGroup,
    CheckpointSum,
    LedgerCheckpoint,
    UsageEvent,
    UsageTotal,
)
from billing.verification.consistent_read import consistent_read
from billing.verification.rebuild import rebuild

SURELY_COMMITTED = timedelta(minutes=1)
"""After how long what was booked is there to be added up. A booking takes seconds; one that takes
longer, or a host whose clock is late, costs an account that is added up in vain."""

_EVER = datetime.min.replace(tzinfo=UTC)
_SUMS = {
    "credits": Coalesce(Sum("credits_micro"), 0),
    "debited": Coalesce(Sum("debited_micro", filter=~Q(group="")), 0),
}

Sums = tuple[int, int]
"""Micro-credits that were used, and that gateway groups debited."""

logger = logging.getLogger(__name__)


def repair_drift(now: datetime) -> int:
    """Rebuild the accounts whose totals are not the ledger's; return how many those were.

    Its cost depends on the number of accounts and on what was booked in the last minutes, not on
    the history.
    """
    _advance(now - SURELY_COMMITTED)
    repaired = 0
    for pk in sorted(drifted()):
        try:
            repaired += _follow_the_ledger(pk)
            _correct(pk)
        except Exception:
            logger.exception("account %d could not be compared with the ledger", pk)
    return repaired


def _follow_the_ledger(pk: int) -> bool:
    """Rebuild an account whose totals differ from the ledger; return whether that was needed."""
    with consistent_read():
        differs = _whole(pk) != _kept(pk)
    if differs:
        rebuild(pk)
        logger.error("the totals of account %d were not what the ledger says: rebuilt", pk)
        metrics.REPAIRS.inc()
    return differs


def drifted() -> set[int]:
    """Return the accounts whose totals are not the checkpoint and what was booked since."""
    with consistent_read():
        before, sums = _checkpoint()
        for pk, credits, debited in _by_account(_booked(before, None)):
            had = sums.get(pk, (0, 0))
            sums[pk] = had[0] + credits, had[1] + debited
        kept = _kept_by_account()
    return {pk for pk in sums.keys() | kept.keys() if sums.get(pk, (0, 0)) != kept.get(pk, (0, 0))}


def _checkpoint() -> tuple[datetime, dict[int, Sums]]:
    checkpoint = LedgerCheckpoint.objects.filter(pk=1).first()
    rows = CheckpointSum.objects.values_list("account_id", "credits_micro", "debited_micro")
    sums = {pk: (credits, debited) for pk, credits, debited in rows}
    return checkpoint.booked_before if checkpoint else _EVER, sums


def _advance(until: datetime) -> None:
    """Take what was booked before an instant into the checkpoint."""
    checkpoint = LedgerCheckpoint.objects.filter(pk=1).first()
    before = checkpoint.booked_before if checkpoint else _EVER
    if until <= before:
        return
    # Added up before the lock is taken: the first time that is the whole ledger.
    added = list(_by_account(_booked(before, until)))
    with transaction.atomic():
        if _locked_checkpoint() != before:
            return  # somebody else was quicker
        ids = [pk for pk, _, _ in added]
        known = {row.account_id: row for row in CheckpointSum.objects.filter(account__in=ids)}
        rows = [known.get(pk) or CheckpointSum(account_id=pk) for pk in ids]
        for row, (_, credits, debited) in zip(rows, added, strict=True):
            row.credits_micro += credits
            row.debited_micro += debited
        _write(rows)
        LedgerCheckpoint.objects.update_or_create(pk=1, defaults={"booked_before": until})


def _correct(pk: int) -> None:
    """Let the checkpoint say of an account what the ledger says."""
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
    return rows.values_list("account_id").annotate(**_SUMS)


def _whole(pk: int) -> Sums:
    found = UsageEvent.objects.filter(account=pk).order_by().aggregate(**_SUMS)
    return found["credits"], found["debited"]


def _kept(pk: int) -> Sums:
    return _kept_by_account(pk).get(pk, (0, 0))


def _kept_by_account(pk: int | None = None) -> dict[int, Sums]:
    """Return the sums of running totals and group bookings, of one account or all."""
    chosen = Q() if pk is None else Q(account=pk)
    used = UsageTotal.objects.filter(chosen).order_by().values_list("account_id")
    booked = AccountGroup.objects.filter(chosen).order_by().values_list("account_id")
    usage = dict(used.annotate(micro=Sum("usage_micro")))
    bookings = dict(booked.annotate(micro=Sum("booked_micro")))
    return {pk: (usage.get(pk, 0), bookings.get(pk, 0)) for pk in usage.keys() | bookings.keys()}
