"""Usage burns down the periodic limit first and then the grants, in any order of arrival."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings

from billing.decisions.burndown import Grant, LimitTerms, balance_at
from billing.decisions.timeline import Timeline
from billing.models import Limit
from billing.periods import Calendar
from tests.billing.brute_force import simulate
from tests.billing.scenarios import Scenario, instants, scenarios
from tests.examples import examples

MONTHS = [Calendar(datetime.min.replace(tzinfo=UTC))]
NEVER_SET = datetime(2026, 1, 1, tzinfo=UTC)


def day(number: int, month: int = 3) -> datetime:
    return datetime(2026, month, number, tzinfo=UTC)


def balance(now, events, *, limit=0, grants=()):
    terms = [LimitTerms(NEVER_SET, limit)]
    scenario = Scenario(MONTHS, terms, grants, events)
    return balance_at(now, calendars=MONTHS, terms=terms, grants=grants, usage=scenario.usage)


@settings(max_examples=examples(100))
@given(scenarios, instants)
def test_it_agrees_with_replaying_every_event(scenario, now):
    found = balance_at(
        now,
        calendars=scenario.calendars,
        terms=scenario.terms,
        grants=scenario.grants,
        usage=scenario.usage,
    )
    # A stretch has one total, so events later in the current stretch already count.
    current = max((start for start in scenario.usage if start <= now), default=None)
    events = [
        (min(at, now), micro)
        for at, micro in scenario.events
        if at <= now or (current is not None and scenario.stretch_at(at)[0] == current)
    ]
    expected = simulate(now, scenario.calendars, scenario.terms, scenario.grants, events)

    assert found.usage == expected.usage
    assert found.limit == expected.limit
    assert found.headroom == expected.headroom
    assert dict(found.grants_left) == expected.grants_left
    if found.limit is not None:
        assert found.overdrawn == expected.uncovered


def test_a_grant_covers_usage_before_a_later_grant_starts():
    grants = [Grant(1, 100, day(1)), Grant(2, 100, day(10)), Grant(3, 100, day(11))]

    assert balance(day(6), [(day(5), 60)], grants=grants).grants_left == {1: 40}
    later = balance(day(12), [(day(5), 60), (day(10), 70)], grants=grants)
    assert later.grants_left == {1: 0, 2: 70, 3: 100}


def test_usage_and_grants_count_from_their_first_instant_and_micro_credit():
    assert balance(day(5), [(day(5), 60)], limit=100).allowance_left == 40
    covered = balance(day(5), [(day(5), 61)], limit=60, grants=[Grant(1, 5, day(5))])
    assert (covered.grants_left, covered.overdrawn) == ({1: 4}, 0)


def test_a_limit_set_as_a_period_ends_belongs_to_the_next():
    terms = [LimitTerms(NEVER_SET, 50), LimitTerms(day(1, month=4), 10)]

    def limit_at(now):
        return balance_at(now, calendars=MONTHS, terms=terms, grants=[], usage={}).limit

    assert (limit_at(day(20)), limit_at(day(20, month=4))) == (50, 10)


def test_a_limit_with_the_calendar_of_the_one_before_adds_no_calendar():
    limits = [Limit(set_at=day(at), anchor_day=anchor) for at, anchor in ((1, 9), (2, 9), (3, 1))]

    assert [calendar.anchor_day for calendar in Timeline(limits).calendars] == [1, 9, 1]


def test_the_limit_is_used_before_any_grant():
    grant = Grant(1, 100, day(1))

    assert balance(day(20), [(day(5), 60)], limit=50, grants=[grant]).grants_left == {1: 90}


def test_grants_burn_by_priority_then_expiry_then_creation():
    late, soon, first = (
        Grant(1, 5, day(1)),
        Grant(2, 5, day(1), day(30), day(30)),
        Grant(3, 5, day(1), priority=-1),
    )
    grants = [late, soon, first]

    assert balance(day(20), [(day(5), 3)], grants=grants).grants_left == {1: 5, 2: 5, 3: 2}
    assert balance(day(20), [(day(5), 8)], grants=grants).grants_left == {1: 5, 2: 2, 3: 0}
    assert balance(day(20), [(day(5), 12)], grants=grants).grants_left == {1: 3, 2: 0, 3: 0}


def test_a_grant_covers_only_usage_of_its_own_time():
    expired = Grant(1, 10, day(1), day(10), day(10))

    assert balance(day(20), [(day(15), 4)], grants=[expired]).overdrawn == 4
    assert balance(day(20), [(day(9), 4)], grants=[expired]).overdrawn == 0


def test_what_a_voided_grant_covered_stays_covered_and_the_rest_is_gone():
    voided = Grant(1, 10, day(1), ends_at=day(10))

    after = balance(day(20), [(day(5), 4)], grants=[voided])

    assert (after.headroom, after.overdrawn, dict(after.grants_left)) == (0, 0, {})


def test_a_top_up_first_covers_what_the_period_overdrew():
    top_up = Grant(1, 10, day(15))

    assert balance(day(14), [(day(5), 4)], grants=[top_up]).headroom == -4
    assert balance(day(15), [(day(5), 4)], grants=[top_up]).headroom == 6


def test_a_new_period_drops_what_the_old_one_overdrew():
    next_month = Grant(1, 10, day(1, month=4))

    assert balance(day(2, month=4), [(day(5), 4)], grants=[next_month]).headroom == 10


def test_a_grant_lives_through_many_periods():
    grant = Grant(1, 10, day(1, month=1))
    events = [(day(5, month), 12) for month in (1, 2, 3)]

    assert balance(day(20), events, limit=10, grants=[grant]).grants_left == {1: 4}


def test_a_late_event_counts_where_it_occurred():
    grant = Grant(1, 10, day(1, month=2))
    known = [(day(5), 3)]

    assert balance(day(20), known, grants=[grant]).headroom == 7
    assert balance(day(20), [*known, (day(27, month=2), 5)], grants=[grant]).headroom == 2


def test_the_limit_of_a_period_is_the_one_in_force_at_its_end():
    terms = [LimitTerms(day(1), 5), LimitTerms(day(10), 20), LimitTerms(day(3, month=4), 1)]
    grant = Grant(1, 10, day(1))

    def left(now):
        return balance_at(now, calendars=MONTHS, terms=terms, grants=[grant], usage={day(1): 12})

    assert left(day(20)).allowance_left == 8
    assert left(day(20)).grants_left == {1: 10}
    assert left(day(20, month=4)).allowance_left == 1


def test_a_top_up_that_is_used_up_is_not_looked_at_again(monkeypatch):
    looked_at = []
    is_live = Grant.is_live
    monkeypatch.setattr(
        Grant, "is_live", lambda grant, at: looked_at.append(grant) or is_live(grant, at)
    )
    hours = [day(1) + timedelta(hours=number) for number in range(700)]
    grants = [Grant(number, 5, at) for number, at in enumerate(hours)]

    left = balance(day(31), [(at, 5) for at in hours], grants=grants)

    assert left.headroom == 0
    assert len(looked_at) <= 4 * len(grants)


def test_the_cuts_of_top_ups_are_computed_once(monkeypatch):
    asked = []
    monkeypatch.setattr(
        Grant, "cuts", property(lambda grant: asked.append(grant) or (grant.starts_at,))
    )
    timeline = Timeline([], [Grant(number, 1, day(number)) for number in range(1, 29)])

    stretches = {timeline.stretch_at(day(number)) for number in range(1, 29)}

    assert (day(27), day(28)) in stretches
    assert len(asked) == 28
