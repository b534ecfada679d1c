"""Reports from the gateway that what is left can't pay for a call. Every gate then refuses.

One oversized call must not stop the caller's whole team. So a remainder is written off only if it
is below `START_CREDITS`, which the operator considers too little to start with anyway. A caller
could do the same harm by spending it.
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
    """Note that a call did not fit into what was left, although no other call held any of it.

    Returns whether the account is now limited. Raises `Account.DoesNotExist` and `DatabaseBusy`.
    """
    account = Account.objects.get(organization=organization_id, resource=resource)
    if 0 < remaining_micro < settings.START_CREDITS * MICRO:
        account = in_transaction(lambda: _note(account.pk, remaining_micro))
    return account.state == State.LIMITED


def _note(account_id: int, remaining_micro: int) -> Account:
    [account] = lock_accounts([account_id])
    now = timezone.now()  # after taking the lock: the period can end while waiting for it
    account.insufficient_micro = remaining_micro
    account.insufficient_at = now
    account.save(update_fields=["insufficient_micro", "insufficient_at"])
    enforce([account], now)
    return account
