"""Handling requests with an invalid charset, such as `Content-Type: text/plain; charset=hex`.

Django looks the charset up in Python's codecs. Some codecs are not charsets, and Django
fails on them before any middleware runs.
"""

from collections.abc import Callable, Iterable
from typing import Any

from django.utils.http import parse_header_parameters

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def with_known_charset(application: Application) -> Application:
    """Return a WSGI application that never sees a charset that cannot decode text."""

    def wrapped(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        media_type, parameters = _parsed(environ.get("CONTENT_TYPE", ""))
        if "charset" in parameters and not _is_charset(parameters["charset"]):
            environ["CONTENT_TYPE"] = media_type
        return application(environ, start_response)

    return wrapped


def _parsed(content_type: str) -> tuple[str, dict[str, str]]:
    try:
        return parse_header_parameters(content_type)
    except ValueError:
        return "", {}


def _is_charset(name: str) -> bool:
    try:
        return "a".encode(name).decode(name) == "a"
    except (LookupError, ValueError):
        return False
