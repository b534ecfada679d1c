"""`manage.py verify_ledger`: does everything agree with the ledger?"""

import sys
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection, transaction

from billing.credits import display
from billing.models import Account, UsageEvent
from billing.verification import differences, ledger_faults, ledger_sum, totals_sum


class Command(BaseCommand):
    """Compare sums, totals, group bookings and published states with the ledger, and its rows with
    themselves. Changes nothing; exit status 1 and a line for each difference if there is one."""

    help = __doc__

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Verify all in one view of the database and print the outcome."""
        with transaction.atomic():
            if connection.vendor == "postgresql" and not connection.savepoint_ids:
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            faults = list(ledger_faults())
            accounts = Account.objects.select_related("organization").order_by("pk")
            for account in accounts:
                faults += [f"{account}: {difference}" for difference in differences(account)]
            count, ledger, totals = UsageEvent.objects.count(), ledger_sum(), totals_sum()
        self.stdout.write(
            f"{count} events, ledger {display(ledger)} credits, totals {display(totals)} credits."
        )
        for fault in faults:
            self.stdout.write(fault)
        if faults:
            self.stderr.write(
                f"{len(faults)} differences. `manage.py rebuild_quota` repairs totals."
            )
            sys.exit(1)
        self.stdout.write("Everything agrees with the ledger.")
