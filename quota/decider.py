"""Asking billing to decide again about an account whose state is no longer valid.

Only billing can decide, and quota doesn't import billing. So billing registers its decision when
Django starts: see `billing.apps`.
"""

from collections.abc import Callable
from uuid import UUID

_registered: list[Callable[[UUID, str], object]] = []


def register(decide: Callable[[UUID, str], object]) -> None:
    """Set the function that decides about an organization's resource and publishes the result."""
    _registered[:] = [decide]


def decide_again(organization_id: UUID, resource: str) -> None:
    """Decide about the account and publish. Raises whatever the decision raises."""
    [decide] = _registered
    decide(organization_id, resource)
