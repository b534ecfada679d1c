"""`manage.py verify_ledger`: check that everything agrees with the ledger."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.consistent_read import consistent_read
from billing.credits import display
from billing.models import UsageEvent
from billing.verification.all_faults import all_faults
from billing.verification.projections import ledger_sum, totals_sum


class Command(BaseCommand):
    """Compare totals, group bookings, caps, reports and published states with the ledger.

    Also checks the ledger for contradictions, and compares limits, caps, grants and decisions with
    the audit trail. Changes nothing. Prints a line for each difference, and exits with status 1 if
    there is one.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add an argument for the output format."""
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Verify everything in one consistent read of the database, and print the outcome."""
        with consistent_read():
            faults = list(all_faults())
            count, ledger, totals = UsageEvent.objects.count(), ledger_sum(), totals_sum()
        if options["json"]:
            outcome = {"events": count, "ledger_micro": ledger, "totals_micro": totals}
            self.stdout.write(json.dumps(outcome | {"differences": faults}))
        else:
            self.stdout.write(
                f"{count} events, ledger {display(ledger)} credits, totals {display(totals)} "
                "credits."
            )
            for fault in faults:
                self.stdout.write(fault)
        if faults:
            raise CommandError(f"{len(faults)} difference(s); rebuild_quota repairs projections")
        if not options["json"]:
            self.stdout.write("Everything agrees with the ledger.")
