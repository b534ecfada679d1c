"""Where a project stands with one resource right now: the published state joined with its score."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from quota.account_state import AccountState, StateName
from quota.published.limited_set import ResourceReading, expires_at
from quota.reasons import Reason


@dataclass(frozen=True, slots=True)
class Standing:
    """What every gate and every answer is made of.

    `published` is None when nothing was ever decided about the account: `state` is `unknown` then.
    The times are None where there is none, or where a block does not lift by itself.
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
        """The time zone of the day on which usage starts again."""
        return self.published.time_zone if self.published else "UTC"


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores that say whether a project is limited, in unix seconds, None for none.

    `is_by_hand` tells that somebody else than billing set `limited_until`.
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
    """Join a published state with the scores; a score that has passed is no score."""
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
    elif published.state in ("limited", "grace"):  # its score passed, or somebody removed it
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
    """Return the scores in force by a complete reading of Redis.

    The set decides: who is absent is not limited, even when somebody removed a published block by
    hand. Only a member whom the publication never reached (a new project, a rotated token, a score
    kept out by one set by hand that has passed since) is judged by the account's state.
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
    """Return the scores in force by the published state and a block that was seen set by hand."""
    suspended_until = published.suspended_until if published else None
    if _is_ahead(by_hand, now):
        return Scores(by_hand, True, suspended_until)
    score = published.score_of(project_id) if published else None
    return Scores(score, False, suspended_until)


def _is_ahead(score: float | None, now: datetime) -> bool:
    return score is not None and score > now.timestamp()
