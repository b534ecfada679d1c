"""The gate: may this project use credits now?

The webhook, the workflow, task creation and follow-ups all ask here.
"""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import Error as DatabaseFailure

from projects.models import Project
from quota import caps
from quota.account_state import AccountState, StateName
from quota.reasons import Reason
from quota.resources import AI_CREDITS, MICRO
from quota.state import QuotaUnknown, Source, identify, standings

__all__ = ["Headroom", "QuotaUnknown", "Verdict", "check", "headroom"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer. Times are aware; `remaining_micro` is None if there is no limit.

    Show people the day of `resets_at` in `time_zone`. `cap` is set when too little of a cap is left
    to start: it holds the reason that names the cap.
    """

    resource: str
    limited: bool
    state: StateName
    reason: str | None
    limited_until: datetime | None
    resets_at: datetime | None
    remaining_micro: int | None
    source: Source
    time_zone: str = "UTC"
    cap: str | None = None


@dataclass(frozen=True, slots=True)
class Headroom:
    """What is left of a limit or cap. `reason` is the one to give when it is reached."""

    reason: str
    left_micro: int


def headroom(
    project: Project, resource: str = AI_CREDITS, *, distinct_id: str = ""
) -> Headroom | None:
    """Return what is left of the limit or cap that a new run of a user would reach first.

    Return None if nothing limits it. Raises `QuotaUnknown`.
    """
    standing = standings(identify(project)).resources[resource]
    published = standing.published
    if published is None:
        return None
    left = _caps(published, project.pk, distinct_id, 0)
    limit_applies = published.mode == "hard" and standing.state != "grace"
    if limit_applies and published.remaining_micro is not None:
        left.append((Reason.LIMIT_REACHED, published.remaining_micro))
    smallest = min(left, key=lambda each: each[1], default=None)
    return None if smallest is None else Headroom(*smallest)


def check(
    project: Project,
    resource: str = AI_CREDITS,
    *,
    to_start: bool = False,
    distinct_id: str = "",
    run_usage_micro: int = 0,
    now: datetime | None = None,
) -> Verdict:
    """Return whether the project is limited. Nothing is cached between calls.

    With `to_start`, the project is also refused when fewer than `settings.START_CREDITS` are left
    of a hard limit or a cap. Otherwise work would start and then be refused at its first call.

    `distinct_id` is the user the work is for and `run_usage_micro` is what the run has used so far;
    both are checked against their caps. `now` replaces the clock of the store that answers.

    Raises `QuotaUnknown` if neither Redis nor the database can answer.
    """
    found = standings(identify(project), now=now)
    standing = found.resources[resource]
    published = standing.published
    limited, reason, cap = standing.limited, standing.reason, None
    remaining = published.remaining_micro if published else None
    if published is not None and not limited:
        refusal, remaining, cap = _refusal(
            published,
            _caps(published, project.pk, distinct_id, run_usage_micro),
            limit_applies=published.mode == "hard" and standing.state != "grace",
            least=int(settings.START_CREDITS * MICRO) if to_start else 0,
        )
        limited, reason = refusal is not None, refusal or reason
    return Verdict(
        resource=resource,
        limited=limited,
        state="limited" if limited else standing.state,
        reason=reason,
        limited_until=standing.limited_until,
        resets_at=standing.resets_at,
        remaining_micro=remaining,
        source=found.source,
        time_zone=standing.time_zone,
        cap=cap,
    )


def _caps(
    published: AccountState, project_id: int, distinct_id: str, run_usage_micro: int
) -> list[tuple[str, int]]:
    """Return, for each cap in force, the reason to give when it is reached and what is left."""
    try:
        caps_in_force = caps.in_force(published, project_id, distinct_id)
    except DatabaseFailure as error:
        raise QuotaUnknown(f"the caps cannot be read: {error}") from error
    found: list[tuple[str, int]] = [
        (_REASONS[cap.scope], cap.remaining_micro) for cap in caps_in_force
    ]
    if published.run_cap_micro is not None:
        found.append((Reason.RUN_CAP_REACHED, published.run_cap_micro - run_usage_micro))
    return found


def _refusal(
    published: AccountState,
    remaining_caps: list[tuple[str, int]],
    *,
    limit_applies: bool,
    least: int,
) -> tuple[str | None, int | None, str | None]:
    """Return why to refuse a project that the sorted set doesn't limit, what is left, and a cap.

    The reason is None if the project may go on. What is left is the smallest amount left of the
    limit and the caps. The cap, given by the reason that names it, is the one with too little left
    to start, if any.

    The sorted set decides whether a project's own cap is reached, so here it can only keep work
    from starting.
    """
    remaining = published.remaining_micro
    for _, left in remaining_caps:
        remaining = left if remaining is None else min(remaining, left)
    for reason, left in remaining_caps:
        if left <= 0 and reason != Reason.PROJECT_CAP_REACHED:
            return reason, remaining, None
    if not least:
        return None, remaining, None
    left_of_limit = published.remaining_micro
    if limit_applies and left_of_limit is not None and left_of_limit < least:
        return Reason.INSUFFICIENT_REMAINING, remaining, None
    for reason, left in remaining_caps:
        if left < least:
            return Reason.INSUFFICIENT_REMAINING, remaining, reason
    return None, remaining, None


_REASONS = {
    caps.PROJECT.value: Reason.PROJECT_CAP_REACHED,
    caps.USER.value: Reason.USER_CAP_REACHED,
}
