"""Burn-down, forecast, backtest and ranking, with usage that is given here."""

from datetime import UTC, date, datetime, timedelta

import pytest

from billing.credits import MAXIMUM_MICRO
from billing.decisions.burndown import Grant
from billing.decisions.timeline import Timeline
from billing.models import Limit
from billing.periods import Period
from billing.reports.backtest import Reached, hypothetical_terms, replay
from billing.reports.forecast import Forecast, Kind, make_forecast, trailing_days
from billing.reports.grant_burndown import burn_down
from billing.reports.period_usage import PeriodUsage, Segment, periods_back_to, segments_of
from billing.reports.ranking import rank
from billing.reports.sums import Span, Used
from billing.reports.walk import Walk

NOVEMBER = Period(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)


def at(day, hour=0):
    """Return an instant in November."""
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def timeline(limit, *grants):
    """Return the timeline of an account with one limit since October, and grants."""
    return Timeline([Limit(limit_micro=limit, set_at=OCTOBER)], list(grants))


def month(line, used):
    """Return the usage of a November in which the given days used the given amounts, at noon."""
    return PeriodUsage(
        NOVEMBER,
        line.terms[-1].limit_micro,
        tuple(
            Segment(span, {"slack_app": Used(1, used[span.start.day])})
            if span.start.day in used and span.start <= at(span.start.day, 12) < span.end
            else Segment(span, {})
            for span in segments_of(line, Span(*_ends(NOVEMBER)))
        ),
    )


def _ends(period):
    return period.start, period.end


def walk(line, terms=None):
    """Return a walk at the start of November, with nothing used before."""
    return Walk(line, {}, NOVEMBER.start, terms)


def walked(line, used):
    """Return a walk through the whole of November."""
    there = walk(line)
    for segment in month(line, used).segments:
        there.spend(segment.span, segment.used.credits_micro)
    return there


class TestBurnDown:
    def test_a_top_up_burns_once_the_limit_is_used_up(self):
        line = timeline(100, Grant(1, 50, at(3)))

        [burning] = burn_down(walk(line), month(line, {2: 90, 4: 20, 5: 15}), at(6, 12))

        assert (burning.at_start, burning.burned, burning.left, burning.lost) == (50, 25, 25, 0)
        assert burning.by_day[date(2026, 11, 3)] == 50
        assert burning.by_day[date(2026, 11, 4)] == 40
        assert burning.by_day[date(2026, 11, 5)] == 25
        assert date(2026, 11, 7) not in burning.by_day

    def test_what_is_left_at_expiry_or_voiding_is_lost(self):
        line = timeline(100, Grant(1, 50, at(1), ends_at=at(5), expires_at=at(5)))

        [burning] = burn_down(walk(line), month(line, {2: 120}), at(20))

        assert (burning.burned, burning.left, burning.lost) == (20, 0, 30)
        assert max(burning.by_day) == date(2026, 11, 4)

    def test_a_top_up_that_covers_an_earlier_overdraft_burned_that_too(self):
        line = timeline(100, Grant(1, 50, at(4)))

        [burning] = burn_down(walk(line), month(line, {2: 130}), at(6))

        assert (burning.at_start, burning.burned, burning.left) == (50, 30, 20)

    def test_only_what_was_left_from_earlier_months_counts(self):
        line = timeline(100, Grant(1, 50, OCTOBER), Grant(2, 10, OCTOBER))
        there = Walk(line, {OCTOBER: 115}, NOVEMBER.start)

        burning = burn_down(there, month(line, {2: 105}), at(6))

        assert [(row.at_start, row.burned) for row in burning] == [(35, 5), (10, 0)]

    def test_a_top_up_that_was_used_up_before_is_omitted(self):
        line = timeline(100, Grant(1, 50, OCTOBER))
        there = Walk(line, {OCTOBER: 500}, NOVEMBER.start)

        assert burn_down(there, month(line, {}), at(6)) == []


class TestForecast:
    WEEK = Span(at(3), at(10))

    def forecast(self, line, used, weekly=70):
        return make_forecast(walked(line, used), NOVEMBER, at(10, 12), self.WEEK, weekly)

    def test_it_is_the_day_on_which_nothing_would_be_left(self):
        found = self.forecast(timeline(100), {3: 70})

        # 30 are left at noon on the 10th: 5 for that day, 10 each for the 11th and 12th, 5 for the
        # 13th.
        assert found == Forecast(Kind.RUNS_OUT, 10, 7, date(2026, 11, 13), 30)

    def test_a_limit_that_lasts_until_it_resets_does_not_run_out(self):
        assert self.forecast(timeline(1000), {3: 70}).kind is Kind.NOT_IN_PERIOD

    def test_a_top_up_moves_the_day(self):
        line = timeline(100, Grant(1, 50, at(1)))

        assert self.forecast(line, {3: 70}).day == date(2026, 11, 18)

    def test_a_top_up_that_expires_before_does_not_help(self):
        line = timeline(100, Grant(1, 50, at(1), ends_at=at(12), expires_at=at(12)))

        assert self.forecast(line, {3: 70}).day == date(2026, 11, 13)

    def test_without_a_monthly_limit_it_looks_ninety_days_ahead(self):
        within = self.forecast(timeline(0, Grant(1, 500, at(1))), {})
        beyond = self.forecast(timeline(0, Grant(1, 5000, at(1))), {})

        assert (within.kind, within.day) == (Kind.RUNS_OUT, date(2026, 12, 30))
        assert beyond.kind is Kind.NOT_SOON

    @pytest.mark.parametrize(
        ("line", "used", "weekly", "kind"),
        [
            (timeline(None), {3: 70}, 70, Kind.UNLIMITED),
            (timeline(100), {3: 100}, 70, Kind.USED_UP),
            (timeline(100), {}, 0, Kind.NO_HISTORY),
            (timeline(100), {}, -5, Kind.NO_HISTORY),
        ],
    )
    def test_it_says_when_there_is_nothing_to_forecast(self, line, used, weekly, kind):
        assert self.forecast(line, used, weekly=weekly).kind is kind

    def test_the_largest_amounts_can_be_forecast(self):
        found = self.forecast(timeline(MAXIMUM_MICRO), {3: 70}, weekly=7 * MAXIMUM_MICRO)

        assert found.day == date(2026, 11, 11)

    def test_the_mean_covers_whole_days_since_the_first_usage(self):
        assert trailing_days(at(10, 12), OCTOBER) == Span(at(3), at(10))
        assert trailing_days(at(10, 12), at(8, 15)) == Span(at(8), at(10))
        assert trailing_days(at(10, 12), at(10, 1)) is None
        assert trailing_days(at(10, 12), None) is None


class TestBacktest:
    def replay(self, line, used, limit):
        """Replay the period. Everything on a day was used at noon."""
        usage = month(line, used)
        terms = hypothetical_terms(usage, line.terms, limit)

        def find(span, micro):
            return Reached(at(span.start.day, 12), used[span.start.day])

        return replay(walk(line, terms), usage, limit, find)

    def test_events_after_the_one_that_reaches_the_limit_are_refused(self):
        found = self.replay(timeline(1000), {2: 60, 4: 60, 6: 60}, 100)

        assert found.reached_at == at(4, 12)
        assert found.refused[0].start == at(4, 12) + timedelta(microseconds=1)
        assert found.refused[-1].end == NOVEMBER.end

    def test_a_limit_that_was_not_reached_refuses_nothing(self):
        found = self.replay(timeline(100), {2: 60, 4: 60}, 121)

        assert (found.reached_at, found.refused) == (None, ())

    def test_a_limit_that_is_reached_exactly_is_reached(self):
        assert self.replay(timeline(100), {2: 60, 4: 60}, 120).reached_at == at(4, 12)

    def test_a_limit_of_zero_refuses_from_the_start(self):
        found = self.replay(timeline(100), {2: 60}, 0)

        assert found.reached_at == NOVEMBER.start
        assert sum((span.end - span.start for span in found.refused), timedelta()) == timedelta(30)

    def test_a_top_up_lifts_the_refusal_and_refused_usage_does_not_spend_it(self):
        line = timeline(1000, Grant(1, 50, at(8)))
        found = self.replay(line, {2: 100, 6: 500, 9: 40, 10: 60}, 100)

        starts = [span.start for span in found.refused]
        assert at(6) in starts
        assert at(9) not in starts
        assert found.refused[-1].end == NOVEMBER.end
        assert at(10, 12) + timedelta(microseconds=1) in starts

    def test_the_terms_of_other_months_stay(self):
        line = timeline(100)
        terms = hypothetical_terms(month(line, {}), line.terms, 7)

        assert [term.limit_micro for term in terms] == [100, 7]
        assert terms[-1].set_at == NOVEMBER.start


def test_the_ranking_and_the_others_add_up_to_the_total():
    ranking = rank({"a": Used(1, 10), "b": Used(2, 70), "c": Used(3, 10), "d": Used(1, 9)}, 2)

    assert [(row.key, row.percent) for row in ranking.top] == [("b", 71), ("a", 10)]
    assert (ranking.others, ranking.others_used, ranking.others_percent) == (2, Used(4, 19), 19)
    assert ranking.total == Used(7, 99)


def test_an_empty_ranking_does_not_divide_by_zero():
    assert rank({"a": Used(3, 0)}, 5).top[0].percent == 0


def test_periods_go_back_to_the_first_usage():
    found = list(
        periods_back_to(timeline(100), at(10), datetime(2026, 9, 15, tzinfo=UTC), at_most=9)
    )

    assert [period.start.month for period in found] == [11, 10, 9]
    assert (
        len(
            list(
                periods_back_to(timeline(100), at(10), datetime(2020, 1, 1, tzinfo=UTC), at_most=9)
            )
        )
        == 9
    )
