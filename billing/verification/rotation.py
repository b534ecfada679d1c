"""Verify whole accounts in turns, a few each minute, like `verify_ledger` does.

This finds what the quick comparisons of the sweep miss: old rows that were changed, usage that was
moved from one stretch of time to another, and caps that were miscounted.
"""

import logging
import time

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from billing import metrics
from billing.account_locks import lock_accounts
from billing.consistent_read import consistent_read
from billing.models import Account
from billing.verification.projections import differences
from billing.verification.rebuild import rebuild

SECONDS = 1.0
"""How long a turn lasts. The last account is always finished."""

AT_MOST = 200

logger = logging.getLogger(__name__)


def verify_some() -> int:
    """Compare the accounts verified longest ago with the ledger, and rebuild those that differ.

    Returns how many accounts were compared.
    """
    until = time.monotonic() + SECONDS
    order = F("verified_at").asc(nulls_first=True)
    verified = 0
    for account in Account.objects.select_related("organization").order_by(order, "pk")[:AT_MOST]:
        try:
            with consistent_read():
                differs = any(differences(account))
            if differs:
                _repair(account.pk)
        except Exception:
            logger.exception("account %d could not be compared with the ledger", account.pk)
        # One by one: accounts must be locked in the order of their ids, and one update of several
        # rows has no order.
        Account.objects.filter(pk=account.pk).update(verified_at=timezone.now())
        verified += 1
        if time.monotonic() > until:
            break
    return verified


def _repair(pk: int) -> None:
    """Compare again while bookings are locked out, and rebuild."""
    with transaction.atomic():
        [account] = lock_accounts([pk])
        found = list(differences(account))
        if found:
            logger.error("account %d is rebuilt: %s", pk, "; ".join(found))
            rebuild(pk)
            metrics.REPAIRS.inc()
