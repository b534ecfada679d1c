"""Create accounts on first use, and lock them, always in the same order."""

from collections.abc import Iterable
from uuid import UUID

from django.db.models import Q, prefetch_related_objects

from billing.models import Account
from quota.resources import RESOURCES


def ensure_accounts(organization_ids: Iterable[UUID]) -> None:
    """Create the accounts that these organizations don't have yet, one for every resource."""
    wanted = {(pk, resource) for pk in organization_ids for resource in RESOURCES}
    existing = Account.objects.filter(organization_id__in={pk for pk, _ in wanted})
    missing = wanted - set(existing.values_list("organization_id", "resource"))
    if missing:
        Account.objects.bulk_create(
            (Account(organization_id=pk, resource=resource) for pk, resource in sorted(missing)),
            ignore_conflicts=True,
        )


def lock_accounts(ids: Iterable[int]) -> list[Account]:
    """Return the accounts, locked in the order of their ids until the transaction ends.

    Their organizations are loaded once the locks are taken.
    """
    locked = list(Account.objects.select_for_update().filter(pk__in=list(ids)).order_by("pk"))
    # A join in the locking statement would show the organizations as they were before the wait.
    prefetch_related_objects(locked, "organization")
    return locked


def lock_organization(organization_id: UUID, *resources: str) -> list[Account]:
    """Lock an organization's accounts, for the named resources or all. Creates missing ones."""
    ensure_accounts([organization_id])
    chosen = Q(resource__in=resources) if resources else Q()
    accounts = Account.objects.filter(chosen, organization_id=organization_id)
    return lock_accounts(accounts.values_list("pk", flat=True))
