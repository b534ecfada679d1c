"""Answering bad OAuth requests as the protocol says, where the toolkit would fail with a 500."""

import base64
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit

from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from oauthlib.common import urldecode, urlencoded

View = Callable[..., HttpResponse]

_MAX_LENGTHS = {"code_challenge": 128, "nonce": 255}
"""The lengths of the columns. An S256 challenge has 43 characters (RFC 7636, 4.2)."""

_REPEATABLE = {"resource"}
"""RFC 6749 forbids repeating a parameter (3.1, 3.2). RFC 8707 allows it for this one."""


def with_oauth_errors(view: View) -> View:
    """Return a view that answers 400 to requests that are not valid or lost a race.

    Each request is one transaction. If several use the same code or refresh token at once, one
    succeeds. The others find it used and change nothing.
    """

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not _is_valid(request):
            return JsonResponse({"error": "invalid_request"}, status=400)
        try:
            with transaction.atomic():
                return view(request, *args, **kwargs)
        except (ObjectDoesNotExist, IntegrityError):
            error = "invalid_grant" if "grant_type" in request.POST else "invalid_request"
            return JsonResponse({"error": error}, status=400)

    return wrapped


def _is_valid(request: HttpRequest) -> bool:
    try:
        urldecode(quote(request.META.get("QUERY_STRING", ""), safe="".join(urlencoded)))
    except ValueError:  # oauthlib parses the query again, more strictly than Django
        return False
    for parameters in (request.GET, request.POST):
        for name, values in parameters.lists():
            if len(values) > 1 and name not in _REPEATABLE:
                return False
            # PostgreSQL's text cannot hold a NUL.
            if any(
                "\x00" in value or len(value) > _MAX_LENGTHS.get(name, len(value))
                for value in values
            ):
                return False
        if not all(map(_is_address, parameters.getlist("resource"))):
            return False
    return _is_readable(request.headers.get("Authorization", ""))


def _is_address(text: str) -> bool:
    try:
        return all(urlsplit(part) for part in text.split())
    except ValueError:
        return False


def _is_readable(authorization: str) -> bool:
    scheme, _, encoded = authorization.partition(" ")
    if scheme != "Basic":
        return True
    try:
        return "\x00" not in unquote_plus(base64.b64decode(encoded).decode("latin-1"))
    except ValueError:
        return False
