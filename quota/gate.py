"""The one question: may they? Asked by the webhook, the workflow, task creation and follow-ups."""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from projects.models import Project
from quota.account_state import INSUFFICIENT_REMAINING, StateName
from quota.resources import AI_CREDITS, MICRO
from quota.state import QuotaUnknown, Source, identify, standings

__all__ = ["QuotaUnknown", "Verdict", "check"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer. Times are aware; `remaining_micro` is None where there is no limit."""

    resource: str
    limited: bool
    state: StateName
    reason: str | None
    limited_until: datetime | None
    resets_at: datetime | None
    remaining_micro: int | None
    source: Source


def check(
    project: Project,
    resource: str = AI_CREDITS,
    *,
    to_start: bool = False,
    now: datetime | None = None,
) -> Verdict:
    """Tell whether the project is limited, afresh each time: nothing is remembered.

    With `to_start` it is also refused when fewer than `settings.START_CREDITS` are left of a hard
    limit, so that no work begins only to be refused at its first call. `now` replaces the clock of
    the store that answers. Raises `QuotaUnknown` when neither Redis nor the database can tell.
    """
    found = standings(identify(project), now=now)
    standing = found.resources[resource]
    published = standing.published
    limited, reason = standing.limited, standing.reason
    remaining = published.remaining_micro if published else None
    too_little = (
        published is not None
        and published.mode == "hard"
        and remaining is not None
        and remaining < settings.START_CREDITS * MICRO
    )
    if to_start and not limited and standing.state != "grace" and too_little:
        limited, reason = True, INSUFFICIENT_REMAINING
    return Verdict(
        resource=resource,
        limited=limited,
        state="limited" if limited else standing.state,
        reason=reason,
        limited_until=standing.limited_until,
        resets_at=standing.resets_at,
        remaining_micro=remaining,
        source=found.source,
    )
