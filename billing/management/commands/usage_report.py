"""`manage.py usage_report`: the daily usage report as CSV."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.credits import exact
from billing.management import arguments, csv_file
from billing.models import DailyUsage
from billing.reports.daily_usage import report_day

COLUMNS = (
    "day",
    "organization_id",
    "project_id",
    "resource",
    "product",
    "model",
    "distinct_id",
    "task_run_id",
    "events",
    "credits_micro",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


class Command(BaseCommand):
    """Make the usage report of some days again from the ledger, and write it as CSV."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add arguments for the days to report and the file to write."""
        parser.add_argument("--since", metavar="DATE", required=True, help="the first day, in UTC")
        parser.add_argument("--until", metavar="DATE", required=True, help="the day after the last")
        parser.add_argument("--output", metavar="FILE", help="default: standard output")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Report each day, then write all of them."""
        since = arguments.instant(options["since"]).date()
        until = arguments.instant(options["until"]).date()
        if not 0 < (until - since).days <= 366:
            raise CommandError("--until must be 1 to 366 days after --since")
        for number in range((until - since).days):
            report_day(since + timedelta(days=number))
        rows = DailyUsage.objects.filter(day__gte=since, day__lt=until)
        rows = rows.order_by("day", "project", "resource", "product", "model", "distinct_id", "pk")
        amount = COLUMNS.index("credits_micro")
        csv_file.write(
            options["output"],
            [*COLUMNS, "credits"],
            (
                [*row, exact(row[amount])]
                for row in rows.values_list(*COLUMNS).iterator(chunk_size=2000)
            ),
        )
