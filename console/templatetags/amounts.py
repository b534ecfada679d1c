"""Template filters for amounts of micro-credits, times and reasons."""

from datetime import datetime

from django import template

from billing.admin.words import audit_sentence
from billing.credits import display, display_share, exact
from billing.credits import dollars as credits_in_dollars
from billing.models import AuditEntry
from billing.products import TITLES
from quota import moments, reason_words
from workflows import wording

register = template.Library()


@register.filter
def credits(micro: int | None) -> str:
    """Return an amount rounded for people. Only zero is shown as zero."""
    return display(micro)


@register.filter
def exactly(micro: int | None) -> str:
    """Return an amount with all its digits."""
    return "" if micro is None else f"{exact(micro)} credits"


@register.filter
def moment(instant: datetime | None, zone: str = "UTC") -> str:
    """Return a time with its zone, or an empty text."""
    return moments.moment(instant, zone) if instant else ""


@register.filter
def moment_to_the_second(instant: datetime | None) -> str:
    """Return a time in UTC with its seconds, or an empty text."""
    return moments.moment(instant, seconds=True) if instant else ""


@register.filter
def day_in(instant: datetime, zone: str) -> str:
    """Return the day of a time in a zone."""
    return moments.day(instant, zone)


@register.filter
def thousands(number: int) -> str:
    """Return a whole number with separators."""
    return f"{number:,}"


@register.filter
def in_words(reason: str) -> str:
    """Return a reason in words."""
    return reason_words.in_words(reason)


@register.filter
def spaced(name: str) -> str:
    """Return a name such as `given_up` in words."""
    return name.replace("_", " ")


@register.filter
def work_state(state: str) -> str:
    """Return the state of a task or of one of its runs in words."""
    return wording.work_state(state)


@register.filter
def state_words(state: str) -> str:
    """Return the state of an account in words."""
    return reason_words.state_in_words(state)


@register.filter
def product(name: str) -> str:
    """Return a product in words."""
    return TITLES.get(name, name)


@register.filter
def changed(entry: AuditEntry) -> str:
    """Return what an audit entry says, in a sentence."""
    return audit_sentence(entry)


@register.filter
def share_of(percent: int | None, part: int) -> str:
    """Return a share in percent as text. `part` is the amount that it is the share of."""
    return display_share(percent, part)


@register.filter
def dollars(micro: int) -> str:
    """Return what credits are worth."""
    return credits_in_dollars(micro)


@register.filter
def outcome(text: str) -> str:
    """Return an outcome with the names of reasons in words."""
    return reason_words.with_reasons_in_words(text)
