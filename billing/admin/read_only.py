"""Read-only admin pages, and helpers to display values."""

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.credits import display, exact
from projects.admin_parts.csv_column import in_csv


class ReadOnly:
    """Permissions of a page or an inline on which nothing can be added, changed or deleted."""

    def has_add_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: nothing can be added."""
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: nothing can be changed."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: nothing can be deleted."""
        return False


def credits_column(attribute: str, description: str) -> Any:
    """Return an admin column or field that shows micro-credits as credits."""

    @in_csv(lambda row: exact_or_nothing(getattr(row, attribute)))
    @admin.display(description=description, ordering=attribute)
    def column(_page: Any, row: Any) -> str:
        return display(getattr(row, attribute))

    return column


def thousands_column(attribute: str) -> Any:
    """Return an admin column that shows a whole number with separators."""

    @in_csv(lambda row: getattr(row, attribute))
    @admin.display(description=attribute.replace("_", " "), ordering=attribute)
    def column(_page: Any, row: Any) -> str:
        value = getattr(row, attribute)
        return "–" if value is None else f"{value:,}"

    return column


def exact_or_nothing(micro: int | None) -> str:
    """Return an exact amount of credits for a CSV file, or nothing if it is unknown."""
    return "" if micro is None else exact(micro)


def indented(document: Any) -> SafeString:
    """Return a JSON document as indented HTML text."""
    return format_html('<pre tabindex="0">{}</pre>', json.dumps(document, indent=2))


def number(text: object) -> int:
    """Return the primary key from a form or link, 0 if it isn't a number. No row has the key 0."""
    digits = str(text or "").strip()
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else 0


def actor(request: HttpRequest) -> str:
    """Return the name of the request's user for the audit trail."""
    return str(request.user.get_username())
