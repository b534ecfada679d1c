"""The audit trail: who changed what may be used, when and why."""

from typing import Any

from billing.models import AuditEntry
from projects.models import Organization


def record(
    action: AuditEntry.Action,
    organization: Organization | None,
    *,
    actor: str,
    reason: str = "",
    **details: Any,
) -> None:
    """Append an entry; belongs into the transaction that does what it tells of."""
    AuditEntry.objects.create(
        action=action,
        organization=organization,
        actor=actor[:200],
        reason=reason[:500],
        details=details,
    )
