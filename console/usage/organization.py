"""Where an organization stands with one bucket in one period, and where its credits went.

The number of queries does not depend on how much was used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from billing.credits import display
from billing.decisions.decision_inputs import load_inputs
from billing.decisions.timeline import Timeline
from billing.models import Account, AuditEntry, CreditGrant, DecisionRecord, Limit, UsageEvent
from billing.periods import Period
from billing.reports.backtest import Backtest, hypothetical_terms, reached_in_ledger, replay
from billing.reports.decision_history import WHOLE_ACCOUNT, DecisionHistory
from billing.reports.forecast import Forecast, make_forecast, trailing_days
from billing.reports.grant_burndown import BurningGrant, burn_down
from billing.reports.period_usage import PeriodUsage, periods_back_to, usage_of_period
from billing.reports.ranking import Ranking, rank
from billing.reports.sums import NOTHING, Span, Sums, Used
from billing.reports.walk import Walk
from console.usage.dimensions import THREAD, USER
from projects.slack.names import display_name, people
from quota.account_state import AccountState
from quota.models import CapState, QuotaState, SetMember
from quota.published.limited_set import expires_at
from quota.reason_words import in_words
from quota.reasons import Reason

SHOWN = 10
PERIODS = 13


@dataclass(frozen=True, slots=True)
class Limited:
    """A project or user that is refused now; `until` is None if it does not lift by itself."""

    name: str
    project_id: int | None
    since: datetime | None
    until: datetime | None
    why: str
    decision: DecisionRecord | None


@dataclass(frozen=True, slots=True)
class OrganizationUsage:
    """Everything that an organization's usage page shows. Amounts are micro-credits."""

    account: Account
    now: datetime
    periods: tuple[Period, ...]
    usage: PeriodUsage
    limit: Limit | None
    state: AccountState | None
    decision: DecisionRecord | None
    limited: tuple[Limited, ...]
    grants: tuple[tuple[BurningGrant, CreditGrant], ...]
    forecast: Forecast | None
    by_user: Ranking
    by_thread: Ranking
    by_model: Ranking
    audit: tuple[AuditEntry, ...]

    @property
    def is_current(self) -> bool:
        """Whether the period is the current one."""
        return self.usage.period == self.periods[0]


@dataclass(frozen=True, slots=True)
class BacktestReport:
    """What a limit would have refused in a period."""

    account: Account
    usage: PeriodUsage
    result: Backtest
    refused: Used
    admitted: Used
    users: int
    threads: int


def periods_of(account: Account, timeline: Timeline, now: datetime) -> tuple[Period, ...]:
    """Return the current period and the earlier ones that a page offers."""
    since = first_use(account) or account.organization.created_at
    return tuple(periods_back_to(timeline, now, since, at_most=PERIODS))


def first_use(account: Account) -> datetime | None:
    """Return when the account was first used."""
    events = UsageEvent.objects.filter(account=account).order_by("occurred_at")
    return events.values_list("occurred_at", flat=True).first()


def organization_usage(
    account: Account, period_start: datetime | None, now: datetime
) -> OrganizationUsage:
    """Return the report of the period that contains `period_start`, or of the current period."""
    inputs = load_inputs([account.pk])[account.pk]
    timeline = inputs.timeline
    first = first_use(account)
    period = timeline.period_at(period_start or now)
    trailing = trailing_days(now, first)
    sums = Sums(account, _reach(period, trailing))
    usage = usage_of_period(sums, timeline, period)
    whole = [Span(period.start, period.end)]
    walk = Walk(timeline, inputs.usage, period.start)
    burning = burn_down(walk, usage, now)
    grants = CreditGrant.objects.in_bulk([row.grant.id for row in burning])
    since = first or account.organization.created_at
    state = _state(account)
    is_current = period.start <= now < period.end
    return OrganizationUsage(
        account=account,
        now=now,
        periods=tuple(periods_back_to(timeline, now, since, at_most=PERIODS)),
        usage=usage,
        limit=timeline.current,
        state=state,
        decision=DecisionRecord.objects.filter(account=account, scope="").first(),
        limited=tuple(_limited(account, state, now)),
        grants=tuple((row, grants[row.grant.id]) for row in burning),
        forecast=_forecast(walk, usage, sums, trailing, now) if is_current else None,
        by_user=_ranking(sums, whole, USER),
        by_thread=_ranking(sums, whole, THREAD),
        by_model=_ranking(sums, whole, "model"),
        audit=_audit(account),
    )


def backtest(account: Account, period_start: datetime, limit_micro: int) -> BacktestReport:
    """Return what a limit would have refused in the period that contains `period_start`."""
    inputs = load_inputs([account.pk])[account.pk]
    period = inputs.timeline.period_at(period_start)
    sums = Sums(account, Span(period.start, period.end))
    usage = usage_of_period(sums, inputs.timeline, period)
    terms = hypothetical_terms(usage, inputs.timeline.terms, limit_micro)
    walk = Walk(inputs.timeline, inputs.usage, period.start, terms)
    result = replay(walk, usage, limit_micro, reached_in_ledger(account))
    refused = sum(sums.by(result.refused).values(), NOTHING)
    used = usage.used
    return BacktestReport(
        account=account,
        usage=usage,
        result=result,
        refused=refused,
        admitted=Used(used.events - refused.events, used.credits_micro - refused.credits_micro),
        users=len(sums.by(result.refused, USER)),
        threads=len(sums.by(result.refused, THREAD).keys() - {(None,)}),
    )


def _reach(period: Period, trailing: Span | None) -> Span:
    if trailing is None:
        return Span(period.start, period.end)
    return Span(min(period.start, trailing.start), max(period.end, trailing.end))


def _forecast(
    walk: Walk, usage: PeriodUsage, sums: Sums, trailing: Span | None, now: datetime
) -> Forecast:
    used = sum(sums.by([trailing]).values(), NOTHING) if trailing else NOTHING
    for segment in usage.segments:  # events dated after now, which the burn-down did not walk
        if segment.span.start > now:
            walk.spend(segment.span, segment.used.credits_micro)
    return make_forecast(walk, usage.period, now, trailing, used.credits_micro)


def _ranking(sums: Sums, spans: list[Span], key: object) -> Ranking:
    return rank({found: used for (found,), used in sums.by(spans, key).items()}, SHOWN)  # type: ignore[arg-type]


def _state(account: Account) -> AccountState | None:
    row = QuotaState.objects.filter(
        organization=account.organization_id, resource=account.resource
    ).first()
    return row.published if row else None


def _limited(account: Account, state: AccountState | None, now: datetime) -> Iterator[Limited]:
    in_force = Q(organization=account.organization_id) | Q(
        project__organization=account.organization_id
    )
    members = list(
        SetMember.objects.filter(
            in_force, resource=account.resource, limited_until__gt=now.timestamp()
        )
        .select_related("project__organization")
        .order_by("-since", "pk")
    )
    users = list(
        CapState.objects.filter(
            organization=account.organization_id,
            resource=account.resource,
            scope=CapState.Scope.USER,
            exhausted=True,
        ).order_by("subject")
    )
    projects = [("project", str(member.project_id)) for member in members]
    subjects = [WHOLE_ACCOUNT, *projects, *(("user", row.subject) for row in users)]
    decisions = DecisionHistory(account, subjects, [now])
    for member in members:
        by_hand = member.origin == SetMember.Origin.BY_HAND
        about = ("project", str(member.project_id))
        yield Limited(
            name=str(member.project or member.token),
            project_id=member.project_id,
            since=member.since,
            until=expires_at(member.limited_until),
            why=in_words(Reason.SET_BY_HAND if by_hand else member.reason),
            decision=None if by_hand else decisions.refusing([WHOLE_ACCOUNT, about], now),
        )
    known = people(row.subject for row in users)
    for row in users:
        decision = decisions.in_force(("user", row.subject), now)
        yield Limited(
            name=f"user {display_name(row.subject, known)}",
            project_id=None,
            since=decision.decided_at if decision else None,
            until=state.resets_at if state and row.cap_micro else None,
            why=f"{in_words(Reason.USER_CAP_REACHED)}: {display(row.cap_micro)}",
            decision=decision,
        )


def _audit(account: Account) -> tuple[AuditEntry, ...]:
    entries = AuditEntry.objects.filter(organization=account.organization_id)
    return tuple(entries[:SHOWN])
