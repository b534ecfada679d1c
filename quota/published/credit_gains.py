"""Telling paused runs that an account has more credits: a top-up, a raised limit, a new period.

Quota doesn't know which runs are paused, so workflows registers a function when Django starts: see
`workflows.apps`. The call is only a hint: a sweep looks for paused runs too.
"""

from collections.abc import Callable, Iterable

from django.db import transaction

from quota.account_state import AccountState

_MOST_NAMED = 20
_registered: list[Callable[..., None]] = []


def register(hint: Callable[..., None]) -> None:
    """Set the function to call. It takes organization ids as text; none of them means all."""
    _registered[:] = [hint]


def announce(moves: Iterable[tuple[AccountState | None, AccountState]]) -> None:
    """Call the registered function after the commit if any account has more credits than before.

    `moves` holds each account's state before and after.
    """
    gained = {
        str(after.organization_id)
        for before, after in moves
        if before is not None and _gained(before, after)
    }
    if gained:
        named = sorted(gained) if len(gained) <= _MOST_NAMED else ()
        transaction.on_commit(lambda: _call(named))


def _call(organizations: Iterable[str]) -> None:
    [hint] = _registered
    hint(*organizations)


def _gained(before: AccountState, after: AccountState) -> bool:
    if before.limited and not after.limited:
        return True
    if before.caps_version != after.caps_version:
        return True
    if before.remaining_micro is None:
        return False
    return after.remaining_micro is None or after.remaining_micro > before.remaining_micro
