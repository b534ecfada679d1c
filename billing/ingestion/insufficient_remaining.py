"""What the gateway tells of a remainder that pays for no call: then every gate refuses.

A call that is too large is its caller's affair and must not stop the caller's team. So no more of a
remainder can be given up than the operator calls too little to start with (`START_CREDITS`): a
caller who could spend it could do the same harm by spending it.
"""

from uuid import UUID

from django.conf import settings
from django.utils import timezone

from billing.account_locks import lock_accounts
from billing.decisions.decision import State
from billing.decisions.enforcement import enforce
from billing.models import Account
from billing.retries import in_transaction
from quota.resources import MICRO


def report(organization_id: UUID, resource: str, remaining_micro: int) -> bool:
    """Note that a call which nothing else held up did not fit into what was left.

    Returns whether the account is limited then. Raises `Account.DoesNotExist` and `DatabaseBusy`.
    """
    account = Account.objects.get(organization=organization_id, resource=resource)
    if 0 < remaining_micro < settings.START_CREDITS * MICRO:
        account = in_transaction(lambda: _note(account.pk, remaining_micro))
    return account.state == State.LIMITED


def _note(account_id: int, remaining_micro: int) -> Account:
    [account] = lock_accounts([account_id])
    now = timezone.now()  # not before the lock: the period may have ended while waiting
    account.insufficient_micro = remaining_micro
    account.insufficient_at = now
    account.save(update_fields=["insufficient_micro", "insufficient_at"])
    enforce([account], now)
    return account
