"""The one question: may they? Asked by the webhook, the workflow, task creation and follow-ups."""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import Error as DatabaseFailure

from projects.models import Project
from quota import caps
from quota.account_state import (
    AccountState,
    StateName,
)
from quota.reasons import Reason
from quota.resources import AI_CREDITS, MICRO
from quota.state import QuotaUnknown, Source, identify, standings

__all__ = ["QuotaUnknown", "Verdict", "check"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer. Times are aware; `remaining_micro` is None where there is no limit.

    People read the day of `resets_at` in `time_zone`. `cap` is set when too
    little of a cap is left to start: it is the reason that names the cap.
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


def check(
    project: Project,
    resource: str = AI_CREDITS,
    *,
    to_start: bool = False,
    distinct_id: str = "",
    run_usage_micro: int = 0,
    now: datetime | None = None,
) -> Verdict:
    """Return whether the project is limited. Nothing is remembered between calls.

    With `to_start` it is also refused when fewer than `settings.START_CREDITS` are left of a hard
    limit or of a cap, so that no work begins only to be refused at its first call. `distinct_id`
    names the user for whom the work is, `run_usage_micro` is what the run in question used so far:
    both are held against their caps. `now` replaces the clock of the store that answers. Raises
    `QuotaUnknown` when neither Redis nor the database can tell.
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
            is_compared=published.mode == "hard" and standing.state != "grace",
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
    """Return, of each cap that holds, the reason to give when it is reached, and what is left."""
    try:
        kept = caps.in_force(published, project_id, distinct_id)
    except DatabaseFailure as error:
        raise QuotaUnknown(f"the caps cannot be read: {error}") from error
    found: list[tuple[str, int]] = [(_REASONS[cap.scope], cap.remaining_micro) for cap in kept]
    if published.run_cap_micro is not None:
        found.append((Reason.RUN_CAP_REACHED, published.run_cap_micro - run_usage_micro))
    return found


def _refusal(
    published: AccountState, kept: list[tuple[str, int]], *, is_compared: bool, least: int
) -> tuple[str | None, int | None, str | None]:
    """Return why a project that is not limited is refused anyway, and the least that is left.

    The third value is the reason that names a cap, if too little of that cap is left to start.

    The sorted set decides whether a project's own cap is reached. Here the cap only refuses a start
    for which too little is left.
    """
    remaining = published.remaining_micro
    for _, left in kept:
        remaining = left if remaining is None else min(remaining, left)
    for reason, left in kept:
        if left <= 0 and reason != Reason.PROJECT_CAP_REACHED:
            return reason, remaining, None
    if not least:
        return None, remaining, None
    if is_compared and published.remaining_micro is not None and published.remaining_micro < least:
        return Reason.INSUFFICIENT_REMAINING, remaining, None
    for reason, left in kept:
        if left < least:
            return Reason.INSUFFICIENT_REMAINING, remaining, reason
    return None, remaining, None


_REASONS = {
    caps.PROJECT.value: Reason.PROJECT_CAP_REACHED,
    caps.USER.value: Reason.USER_CAP_REACHED,
}
