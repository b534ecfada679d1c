"""The decision about one account: what it can do, why, and until when.

A pure function of a snapshot. Every instant is compared with the snapshot's one `now`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from billing.decisions.burndown import Balance, Grant, LimitTerms, balance_at
from billing.periods import Calendar
from quota.reasons import Reason

FAR_FUTURE = datetime(3000, 1, 1, tzinfo=UTC)
"""`limited_until` of a limit that never lifts by itself (32503680000 as unix time)."""

THRESHOLDS = (80, 100)
"""Percents of a period's credits at which to warn, unless the limit names others."""


class State(StrEnum):
    """What an account's users experience."""

    OK = "ok"
    WARNING = "warning"
    GRACE = "grace"
    LIMITED = "limited"


CAP_REASONS = {"project": Reason.PROJECT_CAP_REACHED, "user": Reason.USER_CAP_REACHED}
ORGANIZATION = "organization"
"""The binding scope of a reason that applies to the whole account."""


@dataclass(frozen=True, slots=True)
class CapUse:
    """A cap in force and what its subject used in this period, in micro-credits."""

    scope: str
    subject: str
    cap_micro: int
    usage_micro: int


@dataclass(frozen=True, slots=True)
class ReachedCap:
    """A cap that was reached, the reason to give, and when it lifts by itself at the earliest."""

    scope: str
    subject: str
    reason: Reason
    limited_until: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a decision depends on, read under the account's lock.

    `usage` maps the start of each stretch (see `billing.decisions.burndown`) to its total. `booked`
    says whether anything was ever used. `exhausted_since` and `grace_began_at` come from the
    previous decision. `insufficient_micro` is what was left at `insufficient_at`, when it proved
    too little to pay for a call. For the rest of that period, that much or less counts as nothing.
    """

    now: datetime
    calendars: Sequence[Calendar]
    terms: Sequence[LimitTerms]
    usage: Mapping[datetime, int]
    grants: Sequence[Grant] = ()
    is_hard: bool = True
    has_grace: bool = False
    grace_days: int = 0
    organization_active: bool = True
    booked: bool = True
    exhausted_since: datetime | None = None
    grace_began_at: datetime | None = None
    thresholds: Sequence[int] = THRESHOLDS
    caps: Sequence[CapUse] = ()
    insufficient_micro: int = 0
    insufficient_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, in micro-credits and UTC.

    `limited_until` is the earliest instant at which the refusal can lift by itself. It is
    `FAR_FUTURE` if it never does, and None if nothing is refused. During grace it belongs to the
    refusal that begins at `suspended_until`. `headroom` is what can still be spent. It is negative
    if too much was spent, and None if nothing restricts spending (unlimited, soft, in grace).
    `reached` lists the thresholds that the period's usage has reached. `binding_scope` says what
    the reason is about, and is None without a reason. `reached_caps` refuse their own subjects in
    any case. The decision is valid until `valid_until`, or until something is booked or changed.
    """

    state: State
    reason: Reason | None
    limited_until: datetime | None
    suspended_until: datetime | None
    resets_at: datetime | None
    usage: int | None
    limit: int | None
    remaining: int | None
    headroom: int | None
    valid_until: datetime
    period_start: datetime
    exhausted_since: datetime | None
    grace_began_at: datetime | None
    reached: tuple[int, ...]
    binding_scope: str | None
    reached_caps: tuple[ReachedCap, ...]

    @property
    def limited(self) -> bool:
        """Whether to refuse."""
        return self.state is State.LIMITED


def decide(snapshot: Snapshot) -> Decision:
    """Return the decision. An account without limits, usage and grants is unlimited."""
    now = snapshot.now
    balance = _balance(snapshot, now)
    has_allowance = balance.limit is None or balance.limit > 0
    has_grace = snapshot.has_grace and has_allowance
    exhausted = not _pays_for_calls(snapshot, balance)
    since = _exhausted_since(snapshot, balance) if exhausted else None
    lifts_at = _lifts_at(snapshot, balance) if exhausted else None
    grace_began = _grace_began_at(snapshot, balance, exhausted) if has_grace else None
    grace_ends = grace_began and grace_began + timedelta(days=snapshot.grace_days)

    spent = balance.headroom is not None and balance.headroom <= 0
    refusal = Reason.LIMIT_REACHED if spent else Reason.INSUFFICIENT_REMAINING
    reached = _reached(snapshot, balance)
    state, reason = State.OK, None
    limited_until = suspended_until = None
    compared = snapshot.is_hard
    if not snapshot.organization_active:
        state, reason, limited_until = State.LIMITED, Reason.ORGANIZATION_INACTIVE, FAR_FUTURE
    elif exhausted and not snapshot.is_hard:
        state, reason = State.WARNING, refusal
    elif exhausted and grace_ends is not None and now < grace_ends:
        state, reason = State.GRACE, refusal
        limited_until, suspended_until = lifts_at, grace_ends
        compared = False
    elif exhausted:
        state, reason, limited_until = State.LIMITED, refusal, lifts_at
    elif reached:
        state = State.WARNING

    return Decision(
        state=state,
        reason=reason,
        limited_until=limited_until,
        suspended_until=suspended_until,
        resets_at=balance.period.end if has_allowance and snapshot.organization_active else None,
        usage=balance.usage if snapshot.booked else None,
        limit=balance.limit,
        remaining=None if balance.headroom is None else max(balance.headroom, 0),
        headroom=balance.headroom if compared else None,
        valid_until=min(_changes(snapshot, balance, suspended_until)),
        period_start=balance.period.start,
        exhausted_since=since,
        grace_began_at=grace_began,
        reached=reached,
        binding_scope=ORGANIZATION if reason else None,
        reached_caps=tuple(_reached_caps(snapshot, balance)),
    )


def _balance(snapshot: Snapshot, instant: datetime) -> Balance:
    return balance_at(
        instant,
        calendars=snapshot.calendars,
        terms=snapshot.terms,
        grants=snapshot.grants,
        usage=snapshot.usage,
    )


def _pays_for_calls(snapshot: Snapshot, balance: Balance) -> bool:
    """Return whether enough is left to pay for a call."""
    if balance.headroom is None:
        return True
    noticed = snapshot.insufficient_at
    noticed_now = noticed is not None and noticed >= balance.period.start
    return balance.headroom > (snapshot.insufficient_micro if noticed_now else 0)


def _exhausted_since(snapshot: Snapshot, balance: Balance) -> datetime:
    """Return the instant at which the credits ran out.

    A period with a limit began with something left, so a marker from an earlier period is ignored.
    """
    since = snapshot.exhausted_since
    if since is None or (balance.limit and since < balance.period.start):
        return snapshot.now
    return since


def _grace_began_at(snapshot: Snapshot, balance: Balance, exhausted: bool) -> datetime | None:
    """Return when the period's grace began, None if it has not.

    There is one grace per period, even if a correction or a top-up leaves something for a while. A
    new limit that leaves something starts a new grace.
    """
    began = snapshot.grace_began_at
    if began is not None and balance.limit and began < balance.period.start:
        began = None
    if exhausted:
        return began or snapshot.now
    if began is not None and any(began < terms.set_at <= snapshot.now for terms in snapshot.terms):
        return None
    return began


def _lifts_at(snapshot: Snapshot, balance: Balance) -> datetime:
    """Return the first instant at which something will be left if nothing more is used."""
    begins = {grant.starts_at for grant in snapshot.grants if grant.is_live(grant.starts_at)}
    instants = {begin for begin in begins if snapshot.now < begin < FAR_FUTURE}
    instants.add(balance.period.end)
    for instant in sorted(instants):
        if _pays_for_calls(snapshot, _balance(snapshot, instant)):
            return instant
    return FAR_FUTURE


def _reached(snapshot: Snapshot, balance: Balance) -> tuple[int, ...]:
    """Return the thresholds reached, as shares of the period's credits (used plus left)."""
    if balance.headroom is None or balance.usage <= 0:
        return ()
    had = balance.usage + balance.headroom
    return tuple(percent for percent in snapshot.thresholds if balance.usage * 100 >= percent * had)


def _reached_caps(snapshot: Snapshot, balance: Balance) -> Iterator[ReachedCap]:
    for cap in snapshot.caps:
        if cap.usage_micro >= cap.cap_micro:
            until = balance.period.end if cap.cap_micro else FAR_FUTURE
            yield ReachedCap(cap.scope, cap.subject, CAP_REASONS[cap.scope], until)


def _changes(
    snapshot: Snapshot, balance: Balance, suspended_until: datetime | None
) -> list[datetime]:
    """Return the instants after `now` at which the decision can change by itself."""
    cuts = [cut for grant in snapshot.grants for cut in grant.cuts if cut > snapshot.now]
    return [balance.period.end, *cuts, *([suspended_until] if suspended_until else [])]
