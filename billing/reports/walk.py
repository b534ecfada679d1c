"""A walk through a period that spends usage step by step and knows what is left."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from billing.decisions.burndown import Balance, LimitTerms, balance_at
from billing.decisions.timeline import Timeline
from billing.reports.sums import Span


class Walk:
    """Spends a period's usage step by step, on top of what earlier periods used."""

    def __init__(
        self,
        timeline: Timeline,
        usage: Mapping[datetime, int],
        period_start: datetime,
        terms: Sequence[LimitTerms] | None = None,
    ) -> None:
        """Begin at the start of a period.

        `usage` maps the start of each stretch (see `billing.decisions.burndown`) to its total. The
        usage of the period itself is ignored. `terms` replace the account's own limits.
        """
        self.timeline = timeline
        self._terms = timeline.terms if terms is None else terms
        self._calendars = timeline.calendars
        earlier = {start: micro for start, micro in usage.items() if start < period_start}
        self._usage: dict[datetime, int] = defaultdict(int, earlier)

    def spend(self, span: Span, micro: int) -> None:
        """Spend micro-credits within a span in which no grant starts or ends."""
        self._usage[self.timeline.stretch_at(span.start)[0]] += micro

    def balance(self, instant: datetime) -> Balance:
        """Return what is used and left at the instant, counting what was spent so far."""
        return balance_at(
            instant,
            calendars=self._calendars,
            terms=self._terms,
            grants=self.timeline.grants,
            usage=self._usage,
        )
