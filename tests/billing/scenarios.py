"""Hypothesis strategies for instants and for the history of one account."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from billing.decisions.burndown import Grant, LimitTerms, stretch_at
from billing.periods import Calendar

BEGIN = datetime(2026, 1, 10, tzinfo=UTC)
HOURS = 100 * 24
FIRST = Calendar(datetime.min.replace(tzinfo=UTC))

hours = st.integers(0, HOURS)
instants = hours.map(lambda hour: BEGIN + timedelta(hours=hour))
small = st.integers(0, 12)


@dataclass(frozen=True)
class Scenario:
    """An account's limits, calendars, grants and usage."""

    calendars: Sequence[Calendar]
    terms: Sequence[LimitTerms]
    grants: Sequence[Grant]
    events: Sequence[tuple[datetime, int]]

    def stretch_at(self, instant: datetime) -> tuple[datetime, datetime]:
        """The stretch of time that contains the instant."""
        cuts = sorted(cut for grant in self.grants for cut in grant.cuts)
        return stretch_at(instant, self.calendars, cuts)

    @property
    def usage(self) -> Mapping[datetime, int]:
        """The running totals by stretch."""
        totals: Counter[datetime] = Counter()
        for at, micro in self.events:
            totals[self.stretch_at(at)[0]] += micro
        return totals


def _grants(drawn: list[tuple[int, int, int | None, int | None, int]]) -> list[Grant]:
    made = []
    for number, (amount, start, lifetime, voided, priority) in enumerate(drawn):
        starts_at = BEGIN + timedelta(hours=start)
        expires_at = starts_at + timedelta(hours=lifetime) if lifetime else None
        voided_at = BEGIN + timedelta(hours=voided) if voided else None
        ends = [at for at in (expires_at, voided_at) if at is not None]
        made.append(Grant(number, amount, starts_at, min(ends, default=None), expires_at, priority))
    return made


grants = st.lists(
    st.tuples(st.integers(1, 20), hours, st.none() | hours, st.none() | hours, st.integers(0, 2)),
    max_size=4,
).map(_grants)

scenarios = st.builds(
    Scenario,
    calendars=st.just([FIRST])
    | st.builds(Calendar, instants, st.integers(1, 31)).map(lambda moved: [FIRST, moved]),
    terms=st.dictionaries(instants, st.none() | small, max_size=3).map(
        lambda terms: [LimitTerms(*term) for term in sorted(terms.items())]
    ),
    grants=grants,
    events=st.lists(st.tuples(instants, small), max_size=12),
)
