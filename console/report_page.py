"""Serving report pages: the permission check, and the content security policy."""

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
"""Pages load only from Tollgate itself, and text that a page quotes never runs as a script."""


def require(request: HttpRequest, permissions: Iterable[str]) -> None:
    """Raise `PermissionDenied` unless the user has all of the permissions."""
    if not request.user.has_perms(list(permissions)):
        raise PermissionDenied


def report_page(request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
    """Return a page in the admin's frame."""
    answer = TemplateResponse(request, template, admin.site.each_context(request) | context)
    answer.headers["Content-Security-Policy"] = POLICY
    return answer
