"""`manage.py rebuild_quota`: rebuild every projection from the ledger."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db.models import QuerySet

from billing.account_locks import ensure_accounts
from billing.management import arguments
from billing.models import Account
from billing.reports.usage_sums import sum_again
from billing.verification.rebuild import rebuild
from projects.models import Organization


class Command(BaseCommand):
    """Recompute totals and group bookings from the ledger, decide again and publish.

    Safe at any time, also while everything is running: each account is one short transaction.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add arguments for the project, and for a restored database."""
        parser.add_argument("--project", metavar="PROJECT_ID", help="only this one's organization")
        parser.add_argument(
            "--new-epoch",
            action="store_true",
            help="use after restoring a backup: gateways then accept older version numbers",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Rebuild the accounts one by one. Print how many there were and how long it took."""
        began = time.monotonic()
        accounts: QuerySet[Account] = Account.objects.order_by("pk")
        if options["project"]:
            organization = arguments.project(options["project"]).organization_id
            ensure_accounts([organization])
            accounts = accounts.filter(organization=organization)
        else:
            ensure_accounts(Organization.objects.values_list("pk", flat=True))
        ids = list(accounts.values_list("pk", flat=True))
        for pk in ids:
            rebuild(pk, new_epoch=options["new_epoch"])
        if not options["project"]:
            sum_again()
        self.stdout.write(f"{len(ids)} accounts rebuilt in {time.monotonic() - began:.1f} s.")
