"""Deciding again about an account whose state no longer holds.

Only billing can decide, and quota doesn't import billing. So billing registers its decision when
Django starts: see `billing.apps`.
"""

from collections.abc import Callable
from uuid import UUID

_registered: list[Callable[[UUID, str], object]] = []


def register(decide: Callable[[UUID, str], object]) -> None:
    """Have `decide` decide about an organization's resource and publish, in place of any before."""
    _registered[:] = [decide]


def decide_again(organization_id: UUID, resource: str) -> None:
    """Decide about the account and publish; raises whatever the decision raises."""
    [decide] = _registered
    decide(organization_id, resource)
