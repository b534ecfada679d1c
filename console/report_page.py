"""How the pages that report are served: to those who may see them, with nothing from elsewhere."""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.template.response import TemplateResponse

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Everything comes from Tollgate itself, and nothing that a page quotes is ever run as a script."""


def require(request: HttpRequest, permissions: Iterable[str]) -> None:
    """Raise `PermissionDenied` unless the reader has all of the permissions."""
    if not request.user.has_perms(list(permissions)):
        raise PermissionDenied


def report_page(request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
    """Return a page in the admin's frame."""
    answer = TemplateResponse(request, template, admin.site.each_context(request) | context)
    answer.headers["Content-Security-Policy"] = POLICY
    return answer
