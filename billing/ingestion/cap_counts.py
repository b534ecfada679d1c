"""What the rows of a batch add to the usage of capped projects and users."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from billing.decisions.cap_usage import SUBJECT_OF, Subject, SubjectUsage, add_usage, load_caps
from billing.ingestion.ledger_rows import LedgerRow
from billing.models import Account
from billing.periods import Period


def count_rows(
    accounts: Sequence[Account], rows: Sequence[LedgerRow], periods: Mapping[int, Period]
) -> None:
    """Add rows that were just inserted to what their subjects used and their groups booked.

    `periods` are the current periods of the accounts, whose rows the caller must lock. An account's
    `caps_version` is increased, for the caller to store, if gateways need to read its caps again.
    """
    in_force = load_caps(accounts)
    for account in accounts:
        if account.pk in in_force:
            own_rows = [row for row in rows if row.account_id == account.pk]
            add_usage(account, in_force[account.pk], _counts(own_rows, periods[account.pk]))


def _counts(rows: Iterable[LedgerRow], period: Period) -> dict[Subject, SubjectUsage]:
    counts: dict[Subject, SubjectUsage] = defaultdict(SubjectUsage)
    for row in rows:
        for scope, column in SUBJECT_OF.items():
            if subject := getattr(row, column):
                counted = counts[scope, str(subject)]
                if period.start <= row.occurred_at < period.end:
                    counted.usage += row.credits_micro
                if row.group:
                    counted.booked[row.group] += row.debited_micro
    return counts
