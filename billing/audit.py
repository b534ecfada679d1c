"""The audit trail: who changed limits, caps, grants, events, organizations and tokens, and why."""

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
    """Append an entry. Call it in the same transaction as the change."""
    AuditEntry.objects.create(
        action=action,
        organization=organization,
        actor=actor[:200],
        reason=reason[:500],
        details=details,
    )
