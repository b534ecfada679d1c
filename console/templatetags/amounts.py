"""Template filters for amounts of micro-credits and for reasons."""

from django import template

from billing.admin.words import audit_sentence
from billing.credits import display, exact
from billing.models import AuditEntry
from billing.products import TITLES
from quota import reason_words

register = template.Library()


@register.filter
def credits(micro: int | None) -> str:
    """Return an amount rounded for people; zero only if it is zero."""
    return display(micro)


@register.filter
def exactly(micro: int | None) -> str:
    """Return an amount with all its digits."""
    return "" if micro is None else f"{exact(micro)} credits"


@register.filter
def thousands(number: int) -> str:
    """Return a whole number with separators."""
    return f"{number:,}"


@register.filter
def in_words(reason: str) -> str:
    """Return a reason in words."""
    return reason_words.in_words(reason)


@register.filter
def product(name: str) -> str:
    """Return a product in words."""
    return TITLES.get(name, name)


@register.filter
def changed(entry: AuditEntry) -> str:
    """Return what an audit entry says, in a sentence."""
    return audit_sentence(entry)


@register.filter
def percentage(percent: int) -> str:
    """Return a share, already rounded down, as text."""
    return f"{percent} %" if percent else "<1 %"


@register.filter
def outcome(text: str) -> str:
    """Return an outcome with the names of reasons in words."""
    return reason_words.with_reasons_in_words(text)
