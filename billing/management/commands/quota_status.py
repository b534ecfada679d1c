"""`manage.py quota_status PROJECT_ID`: what every gate sees of a project now."""

import json
from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.credits import display
from billing.management import arguments
from quota.representation import render
from quota.standing import Standing
from quota.state import QuotaUnknown, identify, standings

HEADINGS = ("RESOURCE", "STATE", "REASON", "USED", "LIMIT", "LEFT", "LIMITED UNTIL", "RESETS")


class Command(BaseCommand):
    """Show a project's usage, limit and state for every resource, in credits and UTC."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add arguments for the project and the output format."""
        parser.add_argument("project", metavar="PROJECT_ID")
        parser.add_argument(
            "--json",
            action="store_true",
            help="print the response of GET /api/projects/<id>/quota_limits/",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Read the state like the gates do, and print it."""
        project = arguments.project(options["project"])
        try:
            identity = identify(project)
            found = standings(identity)
        except QuotaUnknown as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            body, _ = render(identity, found, None)
            self.stdout.write(json.dumps(json.loads(body), indent=2))
            return
        self.stdout.write(f"{project} (from the {found.source})")
        rows = [HEADINGS, *(_row(standing) for standing in found.resources.values())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())


def _row(standing: Standing) -> tuple[str, ...]:
    published = standing.published
    unlimited = published is not None and published.limit_micro is None
    return (
        standing.resource,
        standing.state,
        standing.reason or "–",
        display(published.usage_micro if published else None),
        "unlimited" if unlimited else display(published.limit_micro if published else None),
        "unlimited" if unlimited else display(published.remaining_micro if published else None),
        _time(standing.limited_until),
        _time(standing.resets_at),
    )


def _time(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M}" if instant else "–"
