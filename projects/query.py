"""Query parameters, read as strictly as the OpenAPI document describes them."""

import re
from datetime import date

from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

FIRST_DAY = date(2000, 1, 1)
LAST_DAY = date(2999, 12, 31)

VERSION = r"^(0|[1-9][0-9]{0,18})$"
LARGEST_VERSION = 2**63 - 1
"""What the database can hold."""

DAY = r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}$"
TEXT = r"^[^\x00]*$"


def text(request: Request, name: str, default: str | None = None) -> str | None:
    """Return the only value of a parameter, or the default without one.

    Raises `ValidationError` for a parameter that is repeated or holds a NUL, which no database
    takes.
    """
    values = request.GET.getlist(name)
    if len(values) > 1:
        raise ValidationError({name: "Wanted: one value."})
    if values and "\x00" in values[0]:
        raise ValidationError({name: "Wanted: a text without NUL."})
    return values[0] if values else default


def version(request: Request, name: str) -> int | None:
    """Return a whole number of at most 63 bits, None without one.

    Raises `ValidationError` for another spelling of a number, and for anything that is none.
    """
    given = text(request, name)
    if given is None:
        return None
    if not re.fullmatch(VERSION, given) or int(given) > LARGEST_VERSION:
        raise ValidationError({name: "Wanted: a whole number such as 812."})
    return int(given)


def day(request: Request, name: str, default: date) -> date:
    """Return a date of this millennium, or the default without one. Raises `ValidationError`."""
    given = text(request, name)
    if given is None:
        return default
    try:
        return _day(given)
    except ValueError:
        raise ValidationError({name: "Wanted: a date such as 2026-11-23, from 2000 on."}) from None


def _day(given: str) -> date:
    # Python reads more of ISO 8601 than dates that are written like this.
    if not re.fullmatch(DAY, given, re.ASCII):
        raise ValueError(given)
    return date.fromisoformat(given)
