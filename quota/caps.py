"""Caps inside an organization's limit: what is left of them, for the gates and the gateway.

Billing writes the rows of `CapState`. They are read from the database, and only for accounts that
have caps.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Q

from quota.account_state import AccountState
from quota.models import CapState

PROJECT, USER = CapState.Scope.PROJECT, CapState.Scope.USER


@dataclass(frozen=True, slots=True)
class Cap:
    """One cap in force, in micro-credits. `booked` maps a gateway group to what it ever booked."""

    scope: str
    subject: str
    cap_micro: int
    usage_micro: int
    booked: dict[str, int]

    @property
    def remaining_micro(self) -> int:
        """What is left; negative if more than the cap was used."""
        return self.cap_micro - self.usage_micro

    def for_group(self, group: str) -> dict[str, int]:
        """Return the cap, what the gateway group may ever spend within it, and what it booked."""
        booked = self.booked.get(group, 0)
        return {
            "cap_micro": self.cap_micro,
            "allotment_micro": self.remaining_micro + booked,
            "booked_micro": booked,
        }


def in_force(published: AccountState, project_id: int, distinct_id: str) -> list[Cap]:
    """Return the caps that apply when this user uses this project; "" means no user.

    Raises `django.db.Error`.
    """
    if not published.caps_version:
        return []
    wanted = Q(scope=PROJECT, subject=str(project_id))
    if distinct_id:
        wanted |= Q(scope=USER, subject=distinct_id)
    rows = {row.scope: row for row in _rows(published.organization_id, published.resource, wanted)}
    caps = []
    for scope, subject, each in (
        (PROJECT, str(project_id), published.project_cap_micro),
        (USER, distinct_id, published.user_cap_micro),
    ):
        row = rows.get(scope)
        if row is not None and row.cap_micro is not None:
            caps.append(Cap(scope, subject, row.cap_micro, row.usage_micro, dict(row.booked)))
        elif row is None and each is not None and subject:
            caps.append(Cap(scope, subject, each, 0, {}))
    return caps


def for_gateway(
    published: AccountState, project_id: int, distinct_id: str, group: str
) -> dict[str, Any] | None:
    """Return what a gateway group needs to enforce caps by itself, or None if there are none."""
    if not published.caps_version:
        return None
    return {
        "version": published.caps_version,
        "run_micro": published.run_cap_micro,
        "users": published.caps_users,
        "scopes": {
            f"{cap.scope}:{cap.subject}": cap.for_group(group)
            for cap in in_force(published, project_id, distinct_id)
        },
    }


def _rows(organization_id: UUID, resource: str, wanted: Q) -> Collection[CapState]:
    rows: Iterable[CapState] = CapState.objects.filter(
        wanted, organization=organization_id, resource=resource
    )
    return list(rows)
