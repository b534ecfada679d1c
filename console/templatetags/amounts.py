"""Amounts of micro-credits, and reasons, in templates."""

from django import template

from billing.credits import display, exact
from console import reasons

register = template.Library()


@register.filter
def credits(micro: int | None) -> str:
    """Return an amount as people read it: never zero for what is not."""
    return display(micro)


@register.filter
def exactly(micro: int | None) -> str:
    """Return an amount to the last digit."""
    return "" if micro is None else f"{exact(micro)} credits"


@register.filter
def in_words(reason: str) -> str:
    """Return what a reason means."""
    return reasons.in_words(reason)


@register.filter
def percentage(percent: int) -> str:
    """Return a share that was rounded down."""
    return f"{percent} %" if percent else "<1 %"
