"""A table as a CSV file that is sent while it is made."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from django.http import StreamingHttpResponse

from billing.credits import exact, exact_dollars
from billing.csv_lines import csv_lines
from billing.reports.sums import Used

AMOUNTS = ("generations", "credits", "dollars")
"""The headers of `amounts`."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def csv_answer(
    name: str, header: Sequence[str], rows: Iterable[Iterable[Any]]
) -> StreamingHttpResponse:
    """Return a file with a table. Only safe characters of `name` get into the file's name."""
    answer = StreamingHttpResponse(csv_lines(header, rows), content_type="text/csv; charset=utf-8")
    file = _UNSAFE.sub("-", name).strip("-.") or "table"
    answer.headers["Content-Disposition"] = f'attachment; filename="{file}.csv"'
    return answer


def amounts(used: Used) -> tuple[int, str, str]:
    """Return the last cells of a row about usage, with exact amounts."""
    return used.events, exact(used.credits_micro), exact_dollars(used.credits_micro)
