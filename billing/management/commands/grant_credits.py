"""`manage.py grant_credits PROJECT_ID RESOURCE CREDITS [--expires DATE] [--idempotency-key K]`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing.allowances.grants import grant_credits
from billing.credits import display
from billing.management import arguments


class Command(BaseCommand):
    """Top up: grant credits to the project's organization, in addition to its limit per period."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add arguments for the amount, the project, the expiry and the reason."""
        parser.add_argument("project", metavar="PROJECT_ID")
        parser.add_argument("resource", metavar="RESOURCE", help="such as ai_credits")
        parser.add_argument("credits", metavar="CREDITS")
        parser.add_argument(
            "--expires",
            metavar="DATE",
            help="a date (expires at its midnight in UTC) or an ISO 8601 time; default: never",
        )
        parser.add_argument(
            "--idempotency-key",
            metavar="KEY",
            default="",
            help="running the command again with the same key grants nothing more",
        )
        parser.add_argument("--reason", default="", help="for the audit trail")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Grant the credits, publish the result and print it."""
        project = arguments.project(options["project"])
        resource = arguments.resource(options["resource"])
        amount = arguments.amount(options["credits"])
        expires_at = arguments.instant(options["expires"]) if options["expires"] else None
        began = timezone.now()
        try:
            grant = grant_credits(
                project.organization,
                resource,
                amount,
                expires_at=expires_at,
                idempotency_key=options["idempotency_key"],
                actor="manage.py grant_credits",
                reason=options["reason"],
            )
        except ValueError as error:
            raise CommandError(str(error)) from error
        until = f" until {expires_at:%Y-%m-%d %H:%M} UTC" if expires_at else ""
        already = ""
        if grant.created_at < began:
            already = f", already at {grant.created_at:%Y-%m-%d %H:%M:%S} UTC"
        credits = f"{display(grant.amount_micro)} {resource}"
        self.stdout.write(f"{project.organization}: {credits} granted{until}{already}.")
