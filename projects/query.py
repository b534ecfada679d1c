"""Query parameters, read as strictly as the OpenAPI document describes them."""

import re
from datetime import date

from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

FIRST_DAY = date(2000, 1, 1)
LAST_DAY = date(2999, 12, 31)

VERSION = r"^(0|[1-9][0-9]{0,18})$"
MAX_VERSION = 2**63 - 1
"""The largest number that the database can hold."""

DAY = r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}$"


def text(request: Request, name: str, default: str | None = None) -> str | None:
    """Return the only value of a parameter, or the default if there is none.

    NULs are replaced, as in booked texts, because PostgreSQL does not accept them. Raises
    `ValidationError` if the parameter is repeated.
    """
    values = request.GET.getlist(name)
    if len(values) > 1:
        raise ValidationError({name: "Wanted: one value."})
    return values[0].replace("\x00", "\N{REPLACEMENT CHARACTER}") if values else default


def version(request: Request, name: str) -> int | None:
    """Return a whole number of at most 63 bits, or None if there is none.

    Raises `ValidationError` if it isn't a number, or is written in another way, such as 007.
    """
    given = text(request, name)
    if given is None:
        return None
    if not re.fullmatch(VERSION, given) or int(given) > MAX_VERSION:
        raise ValidationError({name: "Wanted: a whole number such as 812."})
    return int(given)


def day(request: Request, name: str, default: date) -> date:
    """Return a date from 2000 on, or the default if there is none. Raises `ValidationError`."""
    given = text(request, name)
    if given is None:
        return default
    try:
        return _day(given)
    except ValueError:
        raise ValidationError({name: "Wanted: a date such as 2026-11-23, from 2000 on."}) from None


def _day(given: str) -> date:
    # date.fromisoformat also accepts other forms of ISO 8601.
    if not re.fullmatch(DAY, given, re.ASCII):
        raise ValueError(given)
    return date.fromisoformat(given)
