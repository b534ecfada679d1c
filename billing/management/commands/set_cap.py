"""`manage.py set_cap PROJECT_ID RESOURCE project|user|run CREDITS|none [--for SUBJECT]`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.allowances.caps import set_cap
from billing.credits import display
from billing.management import arguments
from billing.models import Cap


class Command(BaseCommand):
    """Cap what each project, user or run of the project's organization can use of a resource.

    Caps of projects and users apply per period, caps of runs to a whole run.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add arguments for the project, the resource, the scope, the cap and the reason."""
        parser.add_argument("project", metavar="PROJECT_ID")
        parser.add_argument("resource", metavar="RESOURCE", help="such as ai_credits")
        parser.add_argument("scope", metavar="SCOPE", help=" or ".join(Cap.Scope.values))
        parser.add_argument("credits", metavar="CREDITS|none", help="none: not capped")
        parser.add_argument(
            "--for",
            dest="subject",
            metavar="SUBJECT",
            default="",
            help="cap only this project (number) or this user, such as slack:T1:U1",
        )
        parser.add_argument("--reason", default="", help="for the audit trail")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Set the cap, publish the result and print it."""
        project = arguments.project(options["project"])
        credits = options["credits"]
        try:
            cap = set_cap(
                project.organization,
                arguments.resource(options["resource"]),
                options["scope"],
                None if credits == "none" else arguments.amount(credits),
                subject=options["subject"],
                actor="manage.py set_cap",
                reason=options["reason"],
            )
        except ValueError as error:
            raise CommandError(str(error)) from error
        whose = cap.subject or f"each {cap.scope}"
        said = (
            "not capped" if cap.cap_micro is None else f"at most {display(cap.cap_micro)} credits"
        )
        self.stdout.write(f"{project.organization}: {cap.account.resource} of {whose}: {said}.")
