"""Pages that show and never write."""

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.credits import display


class ReadOnly:
    """Permissions of a page or an inline on which nothing is added, changed or deleted."""

    def has_add_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Nothing is added by hand."""
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Nothing is changed."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Nothing is deleted."""
        return False


def credits_column(attribute: str, description: str) -> Any:
    """Return a column or field that shows an amount of micro-credits as credits."""

    @admin.display(description=description, ordering=attribute)
    def column(_page: Any, row: Any) -> str:
        return display(getattr(row, attribute))

    return column


def indented(document: Any) -> SafeString:
    """Return a JSON document as people can read it."""
    return format_html("<pre>{}</pre>", json.dumps(document, indent=2))


def number(text: object) -> int:
    """Return the key that a person or a link names; 0, which nothing has, for what is none."""
    digits = str(text or "").strip()
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else 0


def actor(request: HttpRequest) -> str:
    """Return how the audit trail names who makes the request."""
    return str(request.user.get_username())
