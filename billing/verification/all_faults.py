"""Everything that `manage.py verify_ledger` checks."""

from collections.abc import Iterator

from billing.models import Account
from billing.reports.usage_sums import sum_differences
from billing.verification.audit_faults import audit_trail_faults
from billing.verification.ledger_faults import ledger_faults
from billing.verification.projections import differences, report_differences


def all_faults() -> Iterator[str]:
    """Yield a sentence for each fault. Call this in a `consistent_read`."""
    yield from ledger_faults()
    for account in Account.objects.select_related("organization").order_by("pk"):
        for difference in differences(account):
            yield f"{account}: {difference}"
    yield from report_differences()
    yield from sum_differences()
    yield from audit_trail_faults()
