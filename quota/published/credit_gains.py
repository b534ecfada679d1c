"""Telling whoever waits for credits that there are more: a top-up, a raised limit, a new period.

Quota knows nobody who waits: `settings.QUOTA_GAINED_TASK` names a Celery task, which takes ids of
organizations, or none for all of them. It is a hint. Whoever waits looks for themselves too.
"""

from collections.abc import Iterable

from django.conf import settings
from django.db import transaction

from projects.hints import hasten
from quota.account_state import AccountState

_MOST_NAMED = 20


def announce(moves: Iterable[tuple[AccountState | None, AccountState]]) -> None:
    """Give one hint after the commit if accounts gained, judged by what each was and is."""
    gained = {
        str(after.organization_id)
        for before, after in moves
        if before is not None and _gained(before, after)
    }
    if gained:
        named = sorted(gained) if len(gained) <= _MOST_NAMED else ()
        transaction.on_commit(lambda: hasten(settings.QUOTA_GAINED_TASK, *named))


def _gained(before: AccountState, after: AccountState) -> bool:
    if before.limited and not after.limited:
        return True
    if before.caps_version != after.caps_version:
        return True
    if before.remaining_micro is None:
        return False
    return after.remaining_micro is None or after.remaining_micro > before.remaining_micro
