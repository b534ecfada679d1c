"""The published state of an account: what billing decided and every gate reads.

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
"""The year 3000 in unix seconds: the score of a block that does not lift by itself."""

Account = tuple[UUID, str]
"""An organization's id and a resource."""

StateName = Literal["ok", "warning", "grace", "limited", "unknown"]
Mode = Literal["hard", "soft"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """One decision about an account, and how long it is valid.

    `version` grows with every change to the account; a state never replaces a newer one.

    `limited_until` and `suspended_until` are scores of the sorted sets, in unix seconds.
    `limited_until` is the earliest time at which the refusal can lift, or `FAR_FUTURE` if it cannot
    lift by itself. `suspended_until` is the end of a grace; during a grace nothing is limited and
    only this score is published.

    `valid_until` is the earliest period end, grant start, grant expiry or end of a grace. From then
    on this state is not used, and billing is asked to decide again. `resets_at` is when usage
    starts from zero again; show it to people in `time_zone`.

    `allotment_micro` is what may be spent while the state is valid, plus everything the groups have
    ever booked (limit + grants - usage + sum of `booked`); None means unlimited. `booked` maps a
    group, `<name>:<epoch>`, to what it has ever booked. `usage_micro` is None if no usage was ever
    booked. `limit_micro` and `remaining_micro` are None if there is no limit.

    `project_cap_micro`, `user_cap_micro` and `run_cap_micro` cap each project, user and run that
    has no cap of its own. `caps_users` says whether any user is capped. `capped_projects` maps the
    id of each project that reached its cap to its score. `caps_version` grows whenever anything but
    a group's own bookings changes what the group may spend within a cap; 0 means that there were
    never any caps.

    Raises `ValueError` for an unknown resource or a block without a score.
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
            raise ValueError("a limited account needs a score: FAR_FUTURE if it never lifts")

    @property
    def account(self) -> str:
        """The account's name in the protocol with the gateway."""
        return f"{self.organization_id}:{self.resource}"

    @property
    def score(self) -> int | None:
        """When the limit on all of the account's projects lifts; None if they aren't limited."""
        return self.limited_until if self.limited else None

    @property
    def available_micro(self) -> int | None:
        """The limit and what is left of top-ups; None without a limit."""
        if self.limit_micro is None:
            return None
        return (self.usage_micro or 0) + (self.remaining_micro or 0)

    @property
    def percent_used(self) -> int | None:
        """The share of `available_micro` that is used, rounded down; None if that is 0 or None."""
        available = self.available_micro
        if not available:
            return None
        return min((self.usage_micro or 0) * 100 // available, 100)

    def score_of(self, project_id: int) -> int | None:
        """Return the project's score in the sorted set, or None if it isn't limited."""
        capped = self.capped_projects.get(str(project_id))
        if capped is None or self.score is None:
            return self.score if capped is None else capped
        return max(self.score, capped)

    def reason_of(self, project_id: int) -> str | None:
        """Return why a project is limited or in grace. The account's reason goes before a cap."""
        if self.score is None and str(project_id) in self.capped_projects:
            return Reason.PROJECT_CAP_REACHED
        return self.reason

    def is_due(self, now: datetime) -> bool:
        """Return whether the state is no longer valid, so that billing has to decide again."""
        return self.valid_until is not None and self.valid_until <= now

    def to_json(self) -> str:
        """Return the state as it is kept in Redis and in the database."""
        return json.dumps(
            {item.name: _json_value(getattr(self, item.name)) for item in fields(self)},
            separators=(",", ":"),
        )


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, UUID):
        return str(value)
    return dict(value) if isinstance(value, Mapping) else value


def _datetime(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@lru_cache(maxsize=4096)
def from_json(text: str) -> AccountState:
    """Return the state that `to_json` wrote.

    Caching is safe because callers always read the text itself again. Raises `ValueError`,
    `KeyError` or `TypeError` for any other text.
    """
    document = json.loads(text)
    return AccountState(
        **document
        | {
            "organization_id": UUID(document["organization_id"]),
            "resets_at": _datetime(document["resets_at"]),
            "valid_until": _datetime(document["valid_until"]),
        }
    )
