"""Write limits, caps and top-ups together with their audit entries. Rows are written once."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from billing import audit
from billing.account_locks import lock_organization
from billing.models import Account, AuditEntry, Cap, CreditGrant, Limit
from projects.models import Organization

_NOT_IN_DETAILS = {"id", "account", "actor", "reason", "voided_at"}


@contextmanager
def locked_account(organization: Organization, resource: str) -> Iterator[tuple[Account, datetime]]:
    """Lock an organization's account in a transaction. Yields it, and the time after locking."""
    with transaction.atomic():
        [account] = lock_organization(organization.pk, resource)
        yield account, timezone.now()


def save_with_audit(
    action: AuditEntry.Action,
    row: Limit | Cap | CreditGrant,
    *,
    actor: str,
    reason: str,
    **details: Any,
) -> None:
    """Save a row, and record its fields in the audit trail."""
    row.actor, row.reason = actor[:200], reason[:500]
    row.save()
    audit.record(
        action,
        row.account.organization,
        actor=actor,
        reason=reason,
        resource=row.account.resource,
        row=row.pk,
        **audited_fields(row),
        **details,
    )


def audited_fields(row: Limit | Cap | CreditGrant) -> dict[str, Any]:
    """Return the fields of a row that never change, in a form that JSON can hold."""
    return {
        field.name: audit_value(getattr(row, field.name))
        for field in row._meta.concrete_fields
        if field.name not in _NOT_IN_DETAILS
    }


def audit_value(value: Any) -> Any:
    """Return a column's value as it is stored in the audit trail."""
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
