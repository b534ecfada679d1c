"""Accounts read whole, in turns, as `verify_ledger` reads them: a few each minute.

What the quick comparisons of the sweep cannot see is found here: rows of the past that were
changed, totals that were moved from one stretch of time to another, caps that were miscounted.
"""

import logging
import time

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from billing import metrics
from billing.account_locks import lock_accounts
from billing.models import Account
from billing.verification.consistent_read import consistent_read
from billing.verification.projections import differences
from billing.verification.rebuild import rebuild

SECONDS = 1.0
"""How long a turn goes on; an account that was begun is finished."""

AT_MOST = 200

logger = logging.getLogger(__name__)


def verify_some() -> int:
    """Compare those accounts with the ledger that were not for the longest; rebuild what differs.

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
        # One by one: who locks several accounts does so in their order, which no single update has.
        Account.objects.filter(pk=account.pk).update(verified_at=timezone.now())
        verified += 1
        if time.monotonic() > until:
            break
    return verified


def _repair(pk: int) -> None:
    """Look again while nobody books, and rebuild."""
    with transaction.atomic():
        [account] = lock_accounts([pk])
        found = list(differences(account))
        if found:
            logger.error("account %d is rebuilt: %s", pk, "; ".join(found))
            rebuild(pk)
            metrics.REPAIRS.inc()
