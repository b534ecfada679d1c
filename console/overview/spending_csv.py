"""The tables of what all organizations used in a month, as CSV files with all rows."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date
from typing import Any

from django.http import Http404, HttpRequest, StreamingHttpResponse
from django.utils import timezone

from billing.reports.ranking import Ranking
from billing.reports.usage_sums import OverallUsage, month_of, overall_usage
from console.csv_answer import AMOUNTS, amounts, csv_answer
from console.overview.spending import ORGANIZATIONS
from console.report_page import require
from console.report_permissions import ORGANIZATION_USAGE
from console.usage.dimensions import MODELS, USERS, Dimension, labelled

_DIVIDED: dict[str, Dimension] = {
    "organizations": ORGANIZATIONS,
    "users": USERS,
    "models": MODELS,
}
TABLES = ("days", *_DIVIDED)
_CHUNK = 500
_EVERYBODY = 10**9


def spending_csv(request: HttpRequest, table: str) -> StreamingHttpResponse:
    """Return a table of this month, or of the month that `month` names, such as 2026-11."""
    require(request, ORGANIZATION_USAGE)
    if table not in TABLES:
        raise Http404
    if table in ("users", "models"):
        require(request, ["billing.view_usageevent"])
    month = _month(request.GET.get("month", ""))
    name = f"{table}-{month:%Y-%m}"
    if table == "days":
        usage = overall_usage(month, 0)
        return csv_answer(name, ("day", "bucket", *AMOUNTS), _days(usage))
    dimension = _DIVIDED[table]
    usage = overall_usage(month, _EVERYBODY)
    lines = _lines(getattr(usage, table), dimension)
    return csv_answer(name, (*dimension.columns, *AMOUNTS), lines)


def _month(text: str) -> date:
    with suppress(ValueError):
        month = date.fromisoformat(f"{text}-01")
        if 2000 <= month.year < 2999:
            return month
    return month_of(timezone.now().astimezone(UTC).date())


def _days(usage: OverallUsage) -> Iterator[list[Any]]:
    for day, buckets in sorted(usage.this.days.items()):
        for resource, used in sorted(buckets.items()):
            yield [day, resource, *amounts(used)]


def _lines(ranking: Ranking, dimension: Dimension) -> Iterator[list[Any]]:
    for start in range(0, len(ranking.top), _CHUNK):
        chunk = ranking.top[start : start + _CHUNK]
        labels = labelled(dimension, (row.key for row in chunk))
        for row in chunk:
            yield [*labels[row.key].values, *amounts(row.used)]
