"""`manage.py export_usage`: the ledger as CSV."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db.models import F

from billing.management import arguments, csv_file
from billing.models import UsageEvent

COLUMNS = (
    "uuid",
    "kind",
    "adjusts",
    "occurred_at",
    "booked_at",
    "organization_id",
    "project_id",
    "resource",
    "product",
    "model",
    "provider",
    "distinct_id",
    "task_run_id",
    "trace_id",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_5m_input_tokens",
    "cache_creation_1h_input_tokens",
    "web_search_count",
    "cost_usd",
    "credits_micro",
    "billable",
    "price_version",
    "service_tier",
    "http_status",
    "is_error",
    "is_estimated",
)


class Command(BaseCommand):
    """Write ledger rows as CSV, oldest event first, in exact dollars, micro-credits and UTC.

    A text that a spreadsheet could take for a formula gets an apostrophe in front.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add arguments for the rows to export and the file to write."""
        parser.add_argument("--project", metavar="PROJECT_ID", help="only this project")
        parser.add_argument("--since", metavar="DATE", help="only events on or after this date")
        parser.add_argument("--until", metavar="DATE", help="only events before this date")
        parser.add_argument("--output", metavar="FILE", help="default: standard output")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Write the rows."""
        rows = UsageEvent.objects.order_by("occurred_at", "uuid")
        if options["project"]:
            rows = rows.filter(project=arguments.project(options["project"]))
        if options["since"]:
            rows = rows.filter(occurred_at__gte=arguments.instant(options["since"]))
        if options["until"]:
            rows = rows.filter(occurred_at__lt=arguments.instant(options["until"]))
        values = rows.annotate(
            organization_id=F("project__organization"), resource=F("account__resource")
        ).values_list(*COLUMNS)
        csv_file.write(options["output"], COLUMNS, values.iterator(chunk_size=2000))
