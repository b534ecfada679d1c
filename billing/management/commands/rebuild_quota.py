"""`manage.py rebuild_quota`: make every projection again from the ledger alone."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db.models import QuerySet

from billing.account_locks import ensure_accounts
from billing.management import arguments
from billing.models import Account
from billing.verification.rebuild import rebuild
from projects.models import Organization


class Command(BaseCommand):
    """Replace totals and group bookings by what the ledger says, decide again and publish.

    Safe at any time and while everything runs: each account is one short transaction.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """For whom, and whether the database was restored."""
        parser.add_argument("--project", metavar="PROJECT_ID", help="only this one's organization")
        parser.add_argument(
            "--new-epoch",
            action="store_true",
            help="after a restored backup: followers forget the versions they knew",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Rebuild account by account and print how many, and how long it took."""
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
        self.stdout.write(f"{len(ids)} accounts rebuilt in {time.monotonic() - began:.1f} s.")
