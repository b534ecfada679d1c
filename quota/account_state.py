"""The published state of an account: what billing decided, and all that any gate may know of it.

An account is one organization's pool of one resource. Amounts are integers of micro-credits.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal
from uuid import UUID

from quota.reasons import Reason
from quota.resources import RESOURCES

FAR_FUTURE = 32_503_680_000
"""The year 3000 in unix seconds: the score of a block whose decision cannot lift by itself."""

Account = tuple[UUID, str]
"""An organization's id and a resource."""

StateName = Literal["ok", "warning", "grace", "limited", "unknown"]
Mode = Literal["hard", "soft"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """One decision about an account, with the times at which it stops holding.

    `version` grows with every change to the account; a state never replaces a newer one.
    `limited_until` and `suspended_until` are scores of the sorted sets, in unix seconds: the
    earliest instant at which the refusal can lift (`FAR_FUTURE` where it cannot by itself), and
    the end of a grace. During a grace nothing is limited and only the second one is published.
    `valid_until` is the earliest period end, grant start, grant expiry or end of a grace: from
    then on nobody uses this state, billing is asked to decide again. `resets_at` is when usage
    starts from zero again, for people to read, in the `time_zone` in which the limit's months
    begin.

    `allotment_micro` is what may be spent by the end of the state's validity plus everything that
    the groups ever booked (limit + grants - usage + sum of `booked`); None is unlimited.
    `booked` maps a group, `<name>:<epoch>`, to what it ever booked.
    `usage_micro` is None when usage was never booked, `limit_micro` and `remaining_micro` are None
    when there is no limit.

    `project_cap_micro`, `user_cap_micro` and `run_cap_micro` cap each project, user and run that
    has no cap of its own; `caps_users` says whether any user is capped. `capped_projects`
    maps the number of a project that reached its cap to its score. `caps_version` grows whenever
    what a group may spend within a cap changes otherwise than by its own bookings; 0: no caps ever.

    Raises `ValueError` for an unknown resource and for a block without a score.
    """

    organization_id: UUID
    resource: str
    version: int
    state: StateName
    limited: bool
    reason: str | None = None
    usage_micro: int | None = None
    limit_micro: int | None = None
    remaining_micro: int | None = None
    mode: Mode = "hard"
    limited_until: int | None = None
    resets_at: datetime | None = None
    time_zone: str = "UTC"
    suspended_until: int | None = None
    valid_until: datetime | None = None
    allotment_micro: int | None = None
    booked: Mapping[str, int] = field(default_factory=dict)
    ledger_epoch: str = ""
    project_cap_micro: int | None = None
    user_cap_micro: int | None = None
    run_cap_micro: int | None = None
    caps_users: bool = False
    caps_version: int = 0
    capped_projects: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.resource not in RESOURCES:
            raise ValueError(f"unknown resource {self.resource!r}")
        if self.limited and self.limited_until is None:
            raise ValueError("a limited account has a score: FAR_FUTURE if it never passes")

    @property
    def account(self) -> str:
        """The account's name in the protocol with the gateway."""
        return f"{self.organization_id}:{self.resource}"

    @property
    def score(self) -> int | None:
        """Until when all of the account's projects are limited; None while they are not."""
        return self.limited_until if self.limited else None

    def score_of(self, project_id: int) -> int | None:
        """What stands in the sorted set for a project; None while it is not limited."""
        capped = self.capped_projects.get(str(project_id))
        if capped is None or self.score is None:
            return self.score if capped is None else capped
        return max(self.score, capped)

    def reason_of(self, project_id: int) -> str | None:
        """Why a project is limited or in grace: the account's reason before its own cap."""
        if self.score is None and str(project_id) in self.capped_projects:
            return Reason.PROJECT_CAP_REACHED
        return self.reason

    def is_due(self, now: datetime) -> bool:
        """Return whether the state has stopped holding."""
        return self.valid_until is not None and self.valid_until <= now

    def to_json(self) -> str:
        """Return the state as it is kept in Redis and in the database."""
        return json.dumps(
            {item.name: _plain(getattr(self, item.name)) for item in fields(self)},
            separators=(",", ":"),
        )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, UUID):
        return str(value)
    return dict(value) if isinstance(value, Mapping) else value


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@lru_cache(maxsize=4096)
def from_json(text: str) -> AccountState:
    """Return the state that `to_json` wrote.

    Equal texts give one object: remembering it is safe, because the text itself is read afresh.
    Raises `ValueError`, `KeyError` or `TypeError` for anything else.
    """
    read = json.loads(text)
    return AccountState(
        **read
        | {
            "organization_id": UUID(read["organization_id"]),
            "resets_at": _instant(read["resets_at"]),
            "valid_until": _instant(read["valid_until"]),
        }
    )
