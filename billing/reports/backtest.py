"""Backtest a limit: replay a period's usage against it to see what would have been refused.

Events are admitted while something is left, including the one that reaches the limit. Later events
are refused until a top-up starts that covers more. Top-ups count as they were, and refused usage
doesn't spend them.

This is an approximation. The gateway holds the most that a call can cost before it admits the call,
so it refuses a little earlier. A refused call also ends its run, so most of the later calls would
never have been made. The amount counted as refused is therefore the most that the limit could have
saved, not what people would have missed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from billing.decisions.burndown import LimitTerms
from billing.models import Account, UsageEvent
from billing.reports.period_usage import PeriodUsage
from billing.reports.sums import Span
from billing.reports.walk import Walk


class Reached(NamedTuple):
    """The instant of the event that left nothing, and what was used up to and including it."""

    at: datetime
    used_micro: int


FindReached = Callable[[Span, int], Reached | None]
"""Returns when this many micro-credits were used within the span, None if they were not."""


@dataclass(frozen=True, slots=True)
class Backtest:
    """When a limit would first have been reached, and the spans in which it would have refused."""

    limit_micro: int
    reached_at: datetime | None
    refused: tuple[Span, ...]


def hypothetical_terms(
    usage: PeriodUsage, terms: list[LimitTerms], limit_micro: int
) -> list[LimitTerms]:
    """Return the terms as if this limit had been in force for the period."""
    before = [term for term in terms if term.set_at < usage.period.end]
    last = max([usage.period.start, *(term.set_at for term in before)])
    return [*before, LimitTerms(last, limit_micro)]


def replay(walk: Walk, usage: PeriodUsage, limit_micro: int, find_reached: FindReached) -> Backtest:
    """Return what a limit would have refused in a period.

    `walk` must be at the period's start, with the hypothetical terms.
    """
    refused: list[Span] = []
    reached_at: datetime | None = None
    for segment in usage.segments:
        span, used = segment.span, segment.used.credits_micro
        left = walk.balance(span.start).headroom
        if left is not None and left <= 0:
            reached_at = reached_at or span.start
            refused.append(span)
            continue
        reached = find_reached(span, left) if left is not None and used >= left else None
        if reached is None:
            walk.spend(span, used)
            continue
        reached_at = reached_at or reached.at
        walk.spend(span, reached.used_micro)
        rest = Span(reached.at + datetime.resolution, span.end)
        if rest.start < rest.end:
            refused.append(rest)
    return Backtest(limit_micro, reached_at, tuple(refused))


def reached_in_ledger(account: Account) -> FindReached:
    """Return a function that finds the instant in the ledger. It reads at most one day's events."""

    def find(span: Span, micro: int) -> Reached | None:
        events = UsageEvent.objects.filter(
            account=account, occurred_at__gte=span.start, occurred_at__lt=span.end
        ).order_by("occurred_at")
        used = 0
        reached_at: datetime | None = None
        for occurred_at, credits_micro in events.values_list(
            "occurred_at", "credits_micro"
        ).iterator(chunk_size=2000):
            if reached_at is not None and occurred_at > reached_at:
                break
            used += credits_micro
            if reached_at is None and used >= micro:
                reached_at = occurred_at
        return None if reached_at is None else Reached(reached_at, used)

    return find
