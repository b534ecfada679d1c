"""Decide about accounts regularly: those that are due, and all of them at least once a minute.

A sweep first compares accounts without locks, slice by slice. It then locks only the accounts whose
published state is outdated and reads them again, so a limit raised or a block set during the sweep
is kept. If an account cannot be decided, that is logged, its published state stays, and the sweep
goes on with the others.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from billing import metrics
from billing.account_locks import ensure_accounts, lock_accounts
from billing.decisions.enforcement import enforce
from billing.models import Account
from billing.verification.comparison import compare
from billing.verification.drift import repair_drift
from projects.models import Organization
from quota.resources import RESOURCES

SLICE = 200

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SweepResult:
    """How many accounts a sweep looked at, how many changed, and how many could not be decided."""

    seen: int = 0
    changed: int = 0
    failed: int = 0

    def __add__(self, other: "SweepResult") -> "SweepResult":
        return SweepResult(
            self.seen + other.seen, self.changed + other.changed, self.failed + other.failed
        )


def sweep_due() -> SweepResult:
    """Decide about the accounts whose decision has expired, and return how many there were."""
    swept = SweepResult()
    due = Account.objects.filter(decide_again_at__lte=timezone.now()).order_by("decide_again_at")
    for ids in _slices(list(due.values_list("pk", flat=True))):
        swept += _sweep(ids)
    return swept


def sweep_all() -> SweepResult:
    """Decide about every account, due ones first, and return how many there were.

    Creates missing accounts, and repairs totals that differ from the ledger.
    """
    swept = sweep_due()
    missing = [Organization.objects.exclude(accounts__resource=name) for name in RESOURCES]
    ensure_accounts(pk for query in missing for pk in query.values_list("pk", flat=True))
    _repair_totals()
    for ids in _slices(list(Account.objects.order_by("pk").values_list("pk", flat=True))):
        swept += _sweep(ids)
    return swept


def _repair_totals() -> None:
    try:
        repair_drift(timezone.now())
    except Exception:
        logger.exception("the totals could not be compared with the ledger")


def _slices(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[at : at + SLICE] for at in range(0, len(ids), SLICE))


def _sweep(ids: Sequence[int]) -> SweepResult:
    try:
        accounts = list(Account.objects.select_related("organization").filter(pk__in=ids))
        compared = compare(accounts, timezone.now())
        if compared.outdated:
            _decide(compared.outdated)
        if compared.misstated:
            _republish(compared.misstated)
        return SweepResult(seen=len(ids), changed=len(compared.outdated))
    except Exception:
        if len(ids) > 1:
            logger.exception("a slice of %d accounts failed, trying them one by one", len(ids))
            return sum((_sweep([pk]) for pk in ids), SweepResult())
        logger.exception("account %d could not be decided and keeps its state", ids[0])
        return SweepResult(seen=1, failed=1)


def _decide(ids: Sequence[int]) -> None:
    with transaction.atomic():
        enforce(lock_accounts(ids), timezone.now())


def _republish(ids: Iterable[int]) -> None:
    """Decide and publish again for the accounts that still differ from their decisions."""
    with transaction.atomic():
        accounts = lock_accounts(ids)
        now = timezone.now()
        misstated = compare(accounts, now).misstated
        wrong = [account for account in accounts if account.pk in misstated]
        enforce(wrong, now, republish=True)
    for account in wrong:
        logger.error("account %d is published again: %s", account.pk, misstated[account.pk])
        metrics.REPAIRS.inc()
