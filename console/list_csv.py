"""Every list of the admin as a CSV file: the rows and columns that the user sees, on all pages."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from django.contrib.admin import ModelAdmin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import label_for_field, lookup_field
from django.core.exceptions import BadRequest, ObjectDoesNotExist, PermissionDenied
from django.db.models import Field
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.html import strip_tags
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from console.csv_answer import csv_answer
from projects.admin_parts.completed_list import CompletedList

_CHUNK = 500
_CHECKBOX = "action_checkbox"


def list_as_csv(page: ModelAdmin[Any], request: HttpRequest) -> StreamingHttpResponse:
    """Return a list with its search, filters and order as a CSV file."""
    if not page.has_view_or_change_permission(request):
        raise PermissionDenied
    try:
        found: Any = page.get_changelist_instance(request)
    except IncorrectLookupParameters as error:
        raise BadRequest("The list has no such filter.") from error
    names = [name for name in found.list_display if name != _CHECKBOX]
    header = [capfirst(str(label_for_field(name, page.model, page))) for name in names]
    return csv_answer(str(page.opts.verbose_name_plural), header, _lines(found, page, names))


def _lines(found: Any, page: Any, names: Sequence[Any]) -> Iterator[list[Any]]:
    rows = found.queryset.iterator(chunk_size=_CHUNK)
    while chunk := list(islice(rows, _CHUNK)):
        if isinstance(found, CompletedList):
            found.complete(chunk)
        for row in chunk:
            yield [_value(name, row, page) for name in names]


def _value(name: Any, row: Any, page: Any) -> Any:
    try:
        field, attribute, value = lookup_field(name, row, page)
    except ObjectDoesNotExist:
        return ""
    if (csv_value := getattr(attribute, "csv_value", None)) is not None:
        return csv_value(row)
    if isinstance(field, Field) and field.choices:
        return getattr(row, f"get_{field.name}_display")()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, SafeString):
        value = strip_tags(value)
    if value is None or value == "–":
        return ""
    if isinstance(value, str | int | float) or hasattr(value, "isoformat"):
        return value
    return str(value)
