"""`manage.py set_limit PROJECT_ID RESOURCE CREDITS|none`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from billing.allowances.limits import set_limit
from billing.credits import display
from billing.management import arguments
from billing.models import Limit


class Command(BaseCommand):
    """Set what the project's organization can use of a resource per period."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add arguments for the project, the resource, the limit and the reason."""
        parser.add_argument("project", metavar="PROJECT_ID")
        parser.add_argument("resource", metavar="RESOURCE", help="such as ai_credits")
        parser.add_argument("credits", metavar="CREDITS|none", help="none: unlimited")
        parser.add_argument(
            "--soft", action="store_true", help="warn when it is reached, never refuse"
        )
        parser.add_argument("--reason", default="", help="for the audit trail")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Set the limit, publish the result and print it."""
        project = arguments.project(options["project"])
        resource = arguments.resource(options["resource"])
        credits = options["credits"]
        limit = set_limit(
            project.organization,
            resource,
            None if credits == "none" else arguments.amount(credits),
            mode=Limit.Mode.SOFT if options["soft"] else Limit.Mode.HARD,
            actor="manage.py set_limit",
            reason=options["reason"],
        )
        allowed = (
            "unlimited"
            if limit.limit_micro is None
            else f"{display(limit.limit_micro)} credits per period ({limit.mode})"
        )
        self.stdout.write(f"{project.organization}: {resource} {allowed}.")
