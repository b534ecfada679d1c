"""The usual size of a limit or a top-up, to notice an amount with a digit too many."""

from collections.abc import Iterable
from statistics import median_low

from billing.models import Account, CreditGrant, Limit
from quota.resources import MICRO

TIMES = 10
"""An amount of more than this many times the usual one is unusual."""
WITHOUT_EXAMPLE = 1_000 * MICRO
"""What counts as usual while there is nothing to compare with."""
_LATEST = 50


def usual_grant(account: Account) -> int:
    """Return a usual top-up in micro-credits.

    That is the median of the account's top-ups, else its limit, else the median of all accounts.
    """
    own = CreditGrant.objects.filter(account=account, voided_at=None)
    others = CreditGrant.objects.filter(account__resource=account.resource, voided_at=None)
    return (
        _middle(own.values_list("amount_micro", flat=True)[:_LATEST])
        or _limit_of(account)
        or _middle(others.values_list("amount_micro", flat=True)[:_LATEST])
        or WITHOUT_EXAMPLE
    )


def usual_limit(account: Account) -> int:
    """Return a usual limit in micro-credits: the account's present one, else of all accounts."""
    others = Limit.objects.filter(account__resource=account.resource, limit_micro__gt=0)
    return (
        _limit_of(account)
        or _middle(others.values_list("limit_micro", flat=True)[:_LATEST])
        or WITHOUT_EXAMPLE
    )


def _limit_of(account: Account) -> int:
    limits = Limit.objects.filter(account=account, limit_micro__gt=0)
    return limits.values_list("limit_micro", flat=True).first() or 0


def _middle(amounts: Iterable[int | None]) -> int:
    known = [amount for amount in amounts if amount]
    return median_low(known) if known else 0
