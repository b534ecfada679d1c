"""Parse command-line arguments. Every mistake gives one clear line and exit status 1."""

from datetime import UTC, date, datetime

from django.core.management.base import CommandError

from billing.credits import parse_credits
from projects.models import Project
from quota.resources import RESOURCES


def project(text: str) -> Project:
    """Return the project with this number. Raises `CommandError` if it does not exist."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
    found = Project.objects.select_related("organization").filter(pk=number).first()
    if found is None:
        raise CommandError(f"there is no project {text!r}")
    return found


def resource(text: str) -> str:
    """Return the name of a quota resource. Raises `CommandError` if it is unknown."""
    if text not in RESOURCES:
        raise CommandError(f"unknown resource {text!r}; there are: {', '.join(RESOURCES)}")
    return text


def amount(text: str) -> int:
    """Return an amount of credits in micro-credits. Raises `CommandError` if it is invalid."""
    try:
        return parse_credits(text)
    except ValueError as error:
        raise CommandError(str(error)) from error


def instant(text: str) -> datetime:
    """Return a date (at midnight) or an ISO 8601 time in UTC. Raises `CommandError`."""
    try:
        if len(text) == len("2026-12-31"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise CommandError(
            f"{text!r} is neither a date such as 2026-12-31 nor an ISO 8601 time"
        ) from None
