"""Comparing accounts with what would be decided now, and what is published of them with both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from billing.decisions.assessment import assess
from billing.decisions.balances import load_books
from billing.models import Account
from quota.published.mismatches import find_mismatches


@dataclass(frozen=True, slots=True)
class Compared:
    """What is wrong with some accounts, by id.

    `outdated`: something else would be decided now. `misstated`: something else was decided than
    what is stored and published, with a sentence that says so.
    """

    outdated: list[int]
    misstated: dict[int, str]


def compare(accounts: Sequence[Account], now: datetime) -> Compared:
    """Compare accounts with what would be decided now, and what is published of them with both.

    Reads without locks: the answer says where to look again under the lock, nothing more.
    """
    books = load_books(account.pk for account in accounts)
    outdated = []
    misstated = {}
    states = {}
    for found in assess(accounts, books, now):
        account = found.account
        if found.digest != account.published_digest:
            outdated.append(account.pk)
        elif not found.is_stored:
            misstated[account.pk] = "what is stored of the last decision is not what it was"
        else:
            states[account.pk] = replace(found.state, version=account.version)
    sentences = find_mismatches(states.values())
    for pk, state in states.items():
        sentence = sentences.get((state.organization_id, state.resource))
        if sentence is not None:
            misstated[pk] = sentence
    return Compared(outdated, misstated)
