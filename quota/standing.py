"""Where a project stands with one resource right now: the published state joined with its score."""

from dataclasses import dataclass
from datetime import datetime

from quota.account_state import LIMIT_REACHED, SET_BY_HAND, AccountState, StateName
from quota.limited_set import ResourceReading, instant


@dataclass(frozen=True, slots=True)
class Standing:
    """What every gate and every answer is made of.

    `published` is None when nothing was ever decided about the account: `state` is `unknown` then.
    The times are None where there is none, or where a block does not lift by itself.
    """

    resource: str
    limited: bool
    state: StateName
    reason: str | None
    limited_until: datetime | None
    resets_at: datetime | None
    published: AccountState | None


def stand(
    resource: str,
    published: AccountState | None,
    *,
    limited_until: float | None,
    by_hand: bool,
    suspended_until: float | None,
    now: datetime,
) -> Standing:
    """Join a published state with the scores in force; a score that has passed is no score."""
    resets_at = published.resets_at if published else None
    limited = limited_until is not None and limited_until > now.timestamp()
    if limited and by_hand:
        lifts_at = instant(limited_until)
        return Standing(resource, True, "limited", SET_BY_HAND, lifts_at, lifts_at, published)
    if limited:
        reason = (published.reason if published else None) or LIMIT_REACHED
        lifts_at = instant(limited_until)
        return Standing(resource, True, "limited", reason, lifts_at, resets_at, published)
    if suspended_until is not None and suspended_until > now.timestamp():
        reason = (published.reason if published else None) or LIMIT_REACHED
        return Standing(resource, False, "grace", reason, None, resets_at, published)
    state: StateName = published.state if published else "unknown"
    if state in ("limited", "grace"):  # its score has passed, or somebody removed it
        state = "ok"
    return Standing(resource, False, state, None, None, resets_at, published)


def from_redis(resource: str, reading: ResourceReading, now: datetime) -> Standing:
    """Judge by a complete reading of Redis.

    The set decides: who is absent is not limited, even when somebody removed a published block by
    hand. Only a member whom the publication never reached (a new project, a rotated token, a score
    kept out by one set by hand that has passed since) is judged by the account's state.
    """
    score = reading.score
    published = reading.state
    if (score is None or score <= now.timestamp()) and published is not None:
        written = reading.entry.limited_until if reading.entry else None
        if written != published.score:
            score = published.score
    return stand(
        resource,
        published,
        limited_until=score,
        by_hand=score == reading.score and reading.is_by_hand(),
        suspended_until=reading.suspended,
        now=now,
    )


def from_database(
    resource: str,
    published: AccountState | None,
    by_hand_until: float | None,
    now: datetime,
) -> Standing:
    """Judge by the published state itself, and by a block that was seen set by hand."""
    by_hand = by_hand_until is not None and by_hand_until > now.timestamp()
    return stand(
        resource,
        published,
        limited_until=by_hand_until if by_hand else published.score if published else None,
        by_hand=by_hand,
        suspended_until=published.suspended_until if published else None,
        now=now,
    )
