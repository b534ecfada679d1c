"""Where a project stands with one resource now: the published state joined with its scores."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from quota.account_state import AccountState, StateName
from quota.published.limited_set import ResourceReading, expires_at
from quota.reasons import Reason


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a project stands with one resource. Every gate and every API answer is built from it.

    `published` is None and `state` is `unknown` if nothing was ever decided about the account.
    `limited_until` is None if the project isn't limited, or if the block does not lift by itself.
    """

    account: str
    resource: str
    limited: bool
    state: StateName
    reason: str | None
    limited_until: datetime | None
    resets_at: datetime | None
    published: AccountState | None

    @property
    def time_zone(self) -> str:
        """The time zone in which to show the day of `resets_at`."""
        return self.published.time_zone if self.published else "UTC"


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores that say whether a project is limited: unix seconds, or None.

    `is_by_hand` is True if somebody other than billing set `limited_until`.
    """

    limited_until: float | None
    is_by_hand: bool
    suspended_until: float | None


def build_standing(
    organization_id: UUID,
    resource: str,
    project_id: int,
    published: AccountState | None,
    scores: Scores,
    now: datetime,
) -> Standing:
    """Join a published state with the scores. Scores in the past are ignored."""
    limited = _is_ahead(scores.limited_until, now)
    grace = not limited and _is_ahead(scores.suspended_until, now)
    reason: str | None = None
    resets_at = published.resets_at if published else None
    if limited and scores.is_by_hand:
        reason = Reason.SET_BY_HAND
        resets_at = expires_at(scores.limited_until)
    elif limited or grace:
        reason = (published.reason_of(project_id) if published else None) or Reason.LIMIT_REACHED
    state: StateName
    if limited:
        state = "limited"
    elif grace:
        state = "grace"
    elif published is None:
        state = "unknown"
    elif published.state in ("limited", "grace"):  # the score is past, or somebody removed it
        state = "ok"
    else:
        state = published.state
    return Standing(
        account=f"{organization_id}:{resource}",
        resource=resource,
        limited=limited,
        state=state,
        reason=reason,
        limited_until=expires_at(scores.limited_until) if limited else None,
        resets_at=resets_at,
        published=published,
    )


def scores_in_redis(reading: ResourceReading, project_id: int, now: datetime) -> Scores:
    """Return the scores in force according to a complete reading of Redis.

    The sorted set decides: a project that is absent is not limited, even if somebody removed a
    published block by hand. The account's state decides only if it never reached the set: for a new
    project, a rotated token, or a score kept out by a block set by hand that has expired since.
    """
    if not _is_ahead(reading.score, now) and reading.state is not None:
        written = reading.entry.limited_until if reading.entry else None
        score = reading.state.score_of(project_id)
        if written != score:
            return Scores(score, False, reading.suspended)
    return Scores(reading.score, reading.is_by_hand, reading.suspended)


def scores_in_database(
    published: AccountState | None, project_id: int, by_hand: float | None, now: datetime
) -> Scores:
    """Return the scores in force according to the published state and a block set by hand."""
    suspended_until = published.suspended_until if published else None
    if _is_ahead(by_hand, now):
        return Scores(by_hand, True, suspended_until)
    score = published.score_of(project_id) if published else None
    return Scores(score, False, suspended_until)


def _is_ahead(score: float | None, now: datetime) -> bool:
    return score is not None and score > now.timestamp()
