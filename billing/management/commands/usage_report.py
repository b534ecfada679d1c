"""`manage.py usage_report`: the daily usage report as CSV."""

import csv
import sys
from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError

from billing.credits import exact
from billing.daily_usage import report_day
from billing.management import arguments
from billing.models import DailyUsage

COLUMNS = (
    *("day", "organization_id", "project_id", "resource", "product", "model", "distinct_id"),
    *("task_run_id", "events", "credits_micro", "input_tokens", "output_tokens"),
    *("cache_read_input_tokens", "cache_creation_input_tokens"),
)


class Command(BaseCommand):
    """Make the report of some days again from the ledger, and write it as CSV."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which days, and where to."""
        parser.add_argument("--since", metavar="DATE", required=True, help="the first day, of UTC")
        parser.add_argument("--until", metavar="DATE", required=True, help="the day after the last")
        parser.add_argument("--output", metavar="FILE", help="default: standard output")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Report each day, then write all."""
        since = arguments.instant(options["since"]).date()
        until = arguments.instant(options["until"]).date()
        if not 0 < (until - since).days <= 366:
            raise CommandError("--until is 1 to 366 days after --since")
        for number in range((until - since).days):
            report_day(since + timedelta(days=number))
        rows = DailyUsage.objects.filter(day__gte=since, day__lt=until)
        rows = rows.order_by("day", "project", "resource", "product", "model", "distinct_id", "pk")
        if options["output"]:
            try:
                with Path(options["output"]).open("w", newline="") as file:
                    _write(file, rows.values_list(*COLUMNS))
            except OSError as error:
                raise CommandError(f"{options['output']}: {error.strerror}") from error
        else:
            _write(sys.stdout, rows.values_list(*COLUMNS))


def _write(file: TextIO, rows: Any) -> None:
    writer = csv.writer(file)
    writer.writerow([*COLUMNS, "credits"])
    position = COLUMNS.index("credits_micro")
    for row in rows.iterator(chunk_size=2000):
        writer.writerow([*row, exact(row[position])])
