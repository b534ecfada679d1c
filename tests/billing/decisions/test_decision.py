"""The decision: what an account can do, why, and until when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.decisions.burndown import Grant, LimitTerms, stretch_at
from billing.decisions.decision import (
    FAR_FUTURE,
    CapUse,
    ReachedCap,
    Snapshot,
    State,
    decide,
)
from billing.periods import Calendar
from quota.reasons import Reason
from tests.billing.brute_force import simulate
from tests.billing.scenarios import FIRST, instants, scenarios

MONTHS = [Calendar(datetime.min.replace(tzinfo=UTC))]
NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
PERIOD_START = datetime(2026, 11, 1, tzinfo=UTC)
PERIOD_END = datetime(2026, 12, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def snapshot(limit, usage=0, **facts):
    return Snapshot(
        now=facts.pop("now", NOW),
        calendars=MONTHS,
        terms=[] if limit is None else [LimitTerms(PERIOD_START, limit)],
        usage={PERIOD_START: usage},
        **facts,
    )


def test_below_the_limit_nothing_is_refused():
    decision = decide(snapshot(1000, 700))

    assert (decision.state, decision.reason, decision.limited) == (State.OK, None, False)
    assert (decision.usage, decision.limit, decision.remaining) == (700, 1000, 300)
    assert decision.resets_at == decision.valid_until == PERIOD_END
    assert decision.limited_until is None


@pytest.mark.case("D10")
def test_a_decision_uses_one_now():
    decision = decide(snapshot(1000, 1000, has_grace=True, grace_days=3))

    assert decision.exhausted_since == NOW
    assert decision.suspended_until == NOW + 3 * DAY


@pytest.mark.parametrize(("usage", "state"), [(799, "ok"), (800, "warning"), (999, "warning")])
def test_it_warns_from_eighty_percent_on(usage, state):
    assert decide(snapshot(1000, usage)).state == state


def test_it_warns_from_the_first_threshold_that_the_limit_names():
    thresholds = [50, 90, 100]

    assert decide(snapshot(1000, 499, thresholds=thresholds)).state is State.OK
    assert decide(snapshot(1000, 500, thresholds=thresholds)).reached == (50,)
    assert decide(snapshot(1000, 900, thresholds=thresholds)).reached == (50, 90)
    assert decide(snapshot(1000, 1005, thresholds=thresholds)).reached == (50, 90, 100)
    assert decide(snapshot(1000, 999, thresholds=[])).state is State.OK
    assert decide(snapshot(0, 0)).reached == ()


@pytest.mark.case("D1")
@pytest.mark.parametrize("usage", [1000, 1001])
def test_exactly_at_the_limit_is_limited(usage):
    decision = decide(snapshot(1000, usage))

    assert decision.limited
    assert decision.reason is Reason.LIMIT_REACHED
    assert decision.remaining == 0
    assert decision.headroom == 1000 - usage


@pytest.mark.case("D2", "D11")
def test_a_limit_of_zero_limits_before_anything_is_used():
    decision = decide(snapshot(0, 0))

    assert decision.limited
    assert decision.limited_until == FAR_FUTURE
    assert decision.resets_at is None


@pytest.mark.parametrize(("limit", "resets_at"), [(0, None), (1, PERIOD_END)])
def test_only_a_limit_that_allows_something_resets(limit, resets_at):
    assert decide(snapshot(limit, limit)).resets_at == resets_at


@pytest.mark.parametrize(
    ("noticed_at", "left", "reason"),
    [
        (PERIOD_START, 5, Reason.INSUFFICIENT_REMAINING),
        (PERIOD_START, 6, None),
        (NOW, 5, Reason.INSUFFICIENT_REMAINING),
        (PERIOD_START - DAY, 5, None),
        (None, 5, None),
    ],
)
def test_what_was_too_little_for_a_call_counts_as_nothing_for_the_rest_of_the_period(
    noticed_at, left, reason
):
    found = snapshot(1000, 1000 - left, insufficient_micro=5, insufficient_at=noticed_at)

    assert decide(found).reason == reason


@pytest.mark.parametrize(
    ("left", "reason"), [(1, Reason.INSUFFICIENT_REMAINING), (0, Reason.LIMIT_REACHED)]
)
def test_only_credits_that_are_used_up_have_reached_the_limit(left, reason):
    found = snapshot(1000, 1000 - left, insufficient_micro=5, insufficient_at=NOW)

    assert (decide(found).reason, decide(found).binding_scope) == (reason, "organization")
    assert decide(snapshot(1000, 1)).binding_scope is None


def test_one_micro_credit_can_reach_every_threshold():
    assert decide(snapshot(1, 1)).reached == (80, 100)


@pytest.mark.parametrize(("usage", "reached"), [(11, False), (12, True), (13, True)])
def test_a_cap_is_reached_when_all_of_it_is_used(usage, reached):
    caps = [CapUse("user", "ann", 12, usage), CapUse("project", "7", 0, 0)]
    found = decide(snapshot(1000, 100, caps=caps)).reached_caps

    of_nothing = ReachedCap("project", "7", Reason.PROJECT_CAP_REACHED, FAR_FUTURE)
    of_the_user = ReachedCap("user", "ann", Reason.USER_CAP_REACHED, PERIOD_END)
    assert found == ((of_the_user, of_nothing) if reached else (of_nothing,))


@pytest.mark.parametrize(
    ("marked", "since"),
    [(None, NOW), (PERIOD_START, PERIOD_START), (PERIOD_START - DAY, NOW), (NOW - DAY, NOW - DAY)],
)
def test_a_marker_of_an_earlier_period_is_ignored(marked, since):
    assert decide(snapshot(1000, 1000, exhausted_since=marked)).exhausted_since == since


@pytest.mark.case("D3")
def test_removing_the_limit_lifts_it_and_clears_the_markers():
    decision = decide(snapshot(None, 5000, exhausted_since=NOW - DAY))

    assert (decision.state, decision.exhausted_since) == (State.OK, None)
    assert decision.limit is decision.remaining is decision.headroom is None


@pytest.mark.case("D4")
def test_usage_that_was_never_booked_is_unknown_and_not_zero():
    decision = decide(Snapshot(now=NOW, calendars=MONTHS, terms=[], usage={}, booked=False))

    assert decision.state is State.OK
    assert decision.usage is None


@pytest.mark.case("D4")
def test_a_limit_works_before_anything_was_booked():
    limited = Snapshot(
        now=NOW, calendars=MONTHS, terms=[LimitTerms(PERIOD_START, 0)], usage={}, booked=False
    )

    assert decide(limited).limited
    assert decide(limited).usage is None


@pytest.mark.case("D5")
def test_a_bucket_without_grace_is_refused_at_once_whatever_grace_the_account_has():
    assert decide(snapshot(1000, 1000, grace_days=30, has_grace=False)).state is State.LIMITED


class TestGrace:
    def at(self, moment, *, usage=1000, since=NOW, limit=1000):
        return decide(
            snapshot(
                limit,
                usage,
                now=moment,
                has_grace=True,
                grace_days=3,
                exhausted_since=since,
                grace_began_at=since,
            )
        )

    @pytest.mark.case("D6")
    def test_it_begins_when_the_limit_is_reached(self):
        decision = self.at(NOW, since=None)

        assert (decision.state, decision.reason) == (State.GRACE, Reason.LIMIT_REACHED)
        assert decision.exhausted_since == decision.grace_began_at == NOW
        assert decision.suspended_until == decision.valid_until == NOW + 3 * DAY
        assert decision.limited_until == PERIOD_END
        assert decision.headroom is None

    @pytest.mark.case("D6")
    def test_it_ends_by_the_clock(self):
        assert self.at(NOW + 3 * DAY - timedelta.resolution).state is State.GRACE
        assert self.at(NOW + 3 * DAY).state is State.LIMITED

    def test_a_period_has_one_grace_however_often_something_is_left_again(self):
        between = self.at(NOW + DAY, usage=10)

        assert (between.exhausted_since, between.grace_began_at) == (None, NOW)
        assert self.at(NOW + 4 * DAY, since=between.grace_began_at).state is State.LIMITED

    def test_a_new_limit_that_leaves_something_has_its_own_grace(self):
        raised = snapshot(1000, 999, now=NOW + DAY, has_grace=True, grace_began_at=NOW)
        raised = replace(raised, terms=[*raised.terms, LimitTerms(NOW + DAY, 2000)])

        assert decide(raised).grace_began_at is None
        as_grace_began = replace(raised, grace_began_at=NOW + DAY)
        assert decide(as_grace_began).grace_began_at == NOW + DAY
        still_exhausted = replace(raised, usage={PERIOD_START: 2000})
        assert decide(still_exhausted).grace_began_at == NOW

    def test_a_new_period_has_its_own_grace(self):
        in_december = self.at(PERIOD_END + DAY)
        assert in_december.state is State.OK

        again = decide(
            replace(
                snapshot(1000, now=PERIOD_END + DAY, has_grace=True, grace_days=3),
                usage={PERIOD_END: 1000},
                exhausted_since=NOW,
                grace_began_at=NOW,
            )
        )
        assert again.suspended_until == PERIOD_END + 4 * DAY

    def test_a_grace_may_begin_with_its_period(self):
        assert self.at(NOW, since=PERIOD_START).grace_began_at == PERIOD_START

    def test_there_is_no_grace_without_credits_to_use_up(self):
        assert self.at(NOW, limit=0, usage=0).state is State.LIMITED


def test_a_soft_limit_warns_and_never_refuses():
    decision = decide(snapshot(1000, 1500, is_hard=False))

    assert (decision.state, decision.reason) == (State.WARNING, Reason.LIMIT_REACHED)
    assert decision.limited_until is decision.headroom is None
    assert decision.remaining == 0


@pytest.mark.case("D11")
@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("is_hard", [True, False])
def test_an_inactive_organization_is_limited_until_somebody_acts(limit, is_hard):
    decision = decide(snapshot(limit, 5, is_hard=is_hard, organization_active=False))

    assert decision.limited
    assert decision.reason is Reason.ORGANIZATION_INACTIVE
    assert decision.limited_until == FAR_FUTURE
    assert decision.resets_at is None


class TestGrants:
    def test_a_top_up_lifts(self):
        top_up = Grant(1, 10, NOW - DAY)

        assert decide(snapshot(1000, 1005, grants=[top_up])).remaining == 5

    @pytest.mark.case("D11")
    def test_the_score_is_the_start_of_a_grant_that_lifts(self):
        soon = Grant(1, 10, NOW + DAY)

        assert decide(snapshot(1000, 1005, grants=[soon])).limited_until == NOW + DAY
        assert decide(snapshot(0, 0, grants=[soon])).limited_until == NOW + DAY

    def test_a_grant_that_would_not_suffice_does_not_lift(self):
        too_small = Grant(1, 5, NOW + DAY)

        assert decide(snapshot(1000, 1005, grants=[too_small])).limited_until == PERIOD_END
        assert decide(snapshot(0, 5, grants=[too_small])).limited_until == FAR_FUTURE

    @pytest.mark.case("D11")
    def test_exhausted_prepaid_credits_never_come_back_by_themselves(self):
        spent = Grant(1, 10, PERIOD_START)

        decision = decide(snapshot(0, 10, grants=[spent]))

        assert (decision.limited_until, decision.resets_at) == (FAR_FUTURE, None)

    def test_a_grant_that_never_begins_or_begins_at_the_end_of_time_lifts_nothing(self):
        voided = Grant(1, 10, NOW + DAY, ends_at=NOW)
        endless = Grant(2, 10, datetime.max.replace(tzinfo=UTC))

        assert decide(snapshot(0, 0, grants=[voided, endless])).limited_until == FAR_FUTURE

    def test_a_decision_is_valid_until_a_grant_starts_or_expires(self):
        expiring = Grant(1, 10, PERIOD_START, NOW + 2 * DAY, NOW + 2 * DAY)
        starting = Grant(2, 10, NOW + DAY)

        assert decide(snapshot(5, 0, grants=[expiring])).valid_until == NOW + 2 * DAY
        assert decide(snapshot(5, 0, grants=[expiring, starting])).valid_until == NOW + DAY
        assert decide(snapshot(5, 0, grants=[Grant(3, 10, NOW)])).valid_until == PERIOD_END


@pytest.mark.case("D11")
def test_the_new_period_starts_from_its_own_usage():
    december = snapshot(1000, 1000, now=PERIOD_END)

    assert decide(december).state is State.OK
    assert decide(december).usage == 0


snapshots = st.builds(
    lambda scenario, now, **facts: Snapshot(
        now=now,
        calendars=scenario.calendars,
        terms=scenario.terms,
        usage={start: micro for start, micro in scenario.usage.items() if start <= now},
        grants=scenario.grants,
        **facts,
    ),
    scenarios,
    instants,
    is_hard=st.booleans(),
    has_grace=st.booleans(),
    grace_days=st.integers(0, 5),
    organization_active=st.integers(0, 9).map(bool),
    exhausted_since=st.none() | instants,
).filter(lambda found: found.exhausted_since is None or found.exhausted_since <= found.now)


@given(snapshots)
def test_it_refuses_if_and_only_if_nothing_is_left(found):
    decision = decide(found)
    events = list(found.usage.items())
    expected = simulate(found.now, found.calendars, found.terms, found.grants, events).headroom
    nothing_left = expected is not None and expected <= 0

    if not found.organization_active:
        assert decision.reason is Reason.ORGANIZATION_INACTIVE
    elif nothing_left and found.is_hard:
        assert decision.state in (State.LIMITED, State.GRACE)
        assert decision.state is State.LIMITED or found.has_grace
    else:
        assert decision.state in (State.OK, State.WARNING)
    assert (decision.exhausted_since is not None) == nothing_left
    if expected is not None:
        assert decision.remaining == max(expected, 0)


@given(snapshots, st.floats(0, 0.999))
def test_nothing_changes_before_the_decision_stops_being_valid(found, share):
    decision = decide(found)
    lifetime = (decision.valid_until - found.now) // timedelta.resolution
    later = found.now + int(lifetime * share) * timedelta.resolution
    markers = {name: getattr(decision, name) for name in ("exhausted_since", "grace_began_at")}

    again = decide(replace(found, now=later, **markers))

    assert replace(again, period_start=decision.period_start) == decision


@pytest.mark.case("D11")
@given(snapshots, st.integers(0, 12))
def test_the_score_is_the_first_instant_at_which_it_lifts(found, limit):
    found = replace(found, is_hard=True, has_grace=False, organization_active=True)
    found = replace(found, terms=[LimitTerms(FIRST.since, limit)])
    spent = decide(found).remaining
    cuts = sorted(cut for grant in found.grants for cut in grant.cuts)
    stretch, _ = stretch_at(found.now, found.calendars, cuts)
    found = replace(found, usage={**found.usage, stretch: found.usage.get(stretch, 0) + spent})
    decision = decide(found)
    assert decision.limited

    def limited_at(instant):
        return decide(replace(found, now=instant)).limited

    for grant in found.grants:
        if found.now < grant.starts_at < decision.limited_until:
            assert limited_at(grant.starts_at)
    assert limited_at(decision.limited_until - timedelta.resolution)
    if decision.limited_until < FAR_FUTURE:
        assert not limited_at(decision.limited_until)
