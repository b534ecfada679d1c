"""Compare what is stored and published about accounts with what would be decided now."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from billing.decisions.assessment import assess
from billing.decisions.decision_inputs import load_inputs
from billing.models import Account
from quota.published.mismatches import find_mismatches


@dataclass(frozen=True, slots=True)
class Compared:
    """The accounts with differences, by id.

    `outdated` accounts would be decided differently now. For `misstated` accounts, what is stored
    or published is not what was decided, and a sentence says how it differs.
    """

    outdated: list[int]
    misstated: dict[int, str]


def compare(accounts: Sequence[Account], now: datetime) -> Compared:
    """Return how accounts, as stored and published, differ from what would be decided now.

    Reads without locks, so the caller must check again under the lock before it changes anything.
    """
    inputs = load_inputs(account.pk for account in accounts)
    outdated = []
    misstated = {}
    states = {}
    for assessment in assess(accounts, inputs, now):
        account = assessment.account
        if assessment.digest != account.published_digest:
            outdated.append(account.pk)
        elif not assessment.is_stored:
            misstated[account.pk] = "the stored fields are not those of the last decision"
        else:
            states[account.pk] = replace(assessment.state, version=account.version)
    sentences = find_mismatches(states.values())
    for pk, state in states.items():
        sentence = sentences.get((state.organization_id, state.resource))
        if sentence is not None:
            misstated[pk] = sentence
    return Compared(outdated, misstated)
