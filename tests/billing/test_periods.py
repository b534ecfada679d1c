"""Billing periods begin on any day, in any time zone, and never leave a gap."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.periods import Calendar, Period, period_at

EVER = datetime(2000, 1, 1, tzinfo=UTC)
ZONES = ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Africa/Cairo", "Asia/Gaza"]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("anchor_day", "zone", "instant", "start", "end"),
    [
        (1, "UTC", "2026-11-23 08:00", "2026-11-01 00:00", "2026-12-01 00:00"),
        (1, "UTC", "2026-12-31 23:59", "2026-12-01 00:00", "2027-01-01 00:00"),
        (15, "UTC", "2026-11-14 23:59", "2026-10-15 00:00", "2026-11-15 00:00"),
        (15, "UTC", "2026-11-15 00:00", "2026-11-15 00:00", "2026-12-15 00:00"),
        # In a month without the anchor day, the period begins on the last day.
        (31, "UTC", "2026-02-28 00:00", "2026-02-28 00:00", "2026-03-31 00:00"),
        (31, "UTC", "2026-04-30 12:00", "2026-04-30 00:00", "2026-05-31 00:00"),
        (30, "UTC", "2028-02-29 12:00", "2028-02-29 00:00", "2028-03-30 00:00"),
        (29, "UTC", "2027-02-28 12:00", "2027-02-28 00:00", "2027-03-29 00:00"),
        # Local midnight: one hour before midnight UTC in winter, two in summer.
        (1, "Europe/Berlin", "2026-10-31 23:30", "2026-10-31 23:00", "2026-11-30 23:00"),
        (1, "Europe/Berlin", "2026-07-15 00:00", "2026-06-30 22:00", "2026-07-31 22:00"),
        # Clocks go forward at midnight: the period begins at the change.
        (24, "Africa/Cairo", "2026-04-24 00:00", "2026-04-23 22:00", "2026-05-23 21:00"),
    ],
)
def test_a_period_runs_from_anchor_to_anchor(anchor_day, zone, instant, start, end):
    calendar = Calendar(EVER, anchor_day, zone)

    assert calendar.period_at(utc(instant)) == Period(utc(start), utc(end))


def test_a_calendar_can_change_repeatedly():
    often = [
        Calendar(utc("2026-11-23T08:00") + timedelta(minutes=n), 1 + n % 2) for n in range(1500)
    ]

    period = Period(utc("2026-11-01T00:00"), utc("2026-12-02T00:00"))
    assert period_at(utc("2026-11-22T12:00"), often) == period
    assert period_at(utc("2026-11-25T12:00"), often) == period


def test_a_period_that_ends_as_the_calendar_changes_ends_there():
    """`since` is in force after its instant, so the boundary at that instant is the old one's."""
    calendars = [Calendar(EVER), Calendar(utc("2026-03-01T00:00"), 15)]

    february = Period(utc("2026-02-01T00:00"), utc("2026-03-01T00:00"))
    assert period_at(utc("2026-02-20T00:00"), calendars) == february
    assert period_at(utc("2026-03-01T00:00"), calendars).start == february.end


def test_a_change_on_a_boundary_of_the_new_calendar_begins_no_period():
    calendars = [Calendar(EVER), Calendar(utc("2026-03-15T00:00"), 15)]
    period = Period(utc("2026-03-01T00:00"), utc("2026-04-15T00:00"))
    for day in ("2026-03-10", "2026-03-15", "2026-03-20"):
        assert period_at(utc(f"{day}T00:00"), calendars) == period


def test_without_a_calendar_there_is_no_period():
    with pytest.raises(ValueError, match="at least one"):
        period_at(EVER, [])


instants = st.integers(0, 4 * 366 * 24).map(
    lambda hours: datetime(2024, 6, 1, tzinfo=UTC) + timedelta(hours=hours)
)
calendars_in_order = st.lists(
    st.tuples(
        instants,
        st.integers(1, 31),
        st.sampled_from(ZONES),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda change: change[0],
).map(lambda changes: [Calendar(*change) for change in sorted(changes)])


@given(calendars_in_order, instants)
def test_every_instant_is_in_exactly_one_period(calendars, instant):
    period = period_at(instant, calendars)

    assert period.start <= instant < period.end
    assert period_at(period.start, calendars) == period
    assert period_at(period.end - timedelta.resolution, calendars) == period
    assert period_at(period.end, calendars).start == period.end


@given(calendars_in_order, instants)
def test_a_new_calendar_never_moves_earlier_periods(calendars, instant):
    before, changed_at = calendars[:-1], calendars[-1].since
    if not before or instant > changed_at:
        return

    old, new = period_at(instant, before), period_at(instant, calendars)

    assert old.start == new.start
    assert old.end == new.end or min(old.end, new.end) > changed_at
