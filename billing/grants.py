"""Credit grants: top-ups beside the periodic limit."""

from datetime import datetime

from django.db import transaction
from django.utils import timezone

from billing import audit
from billing.account_locks import lock_accounts, lock_organization
from billing.credits import MAXIMUM_MICRO
from billing.enforcement import settle
from billing.models import AuditEntry, CreditGrant
from projects.models import Organization


def grant_credits(
    organization: Organization,
    resource: str,
    amount_micro: int,
    *,
    starts_at: datetime | None = None,
    expires_at: datetime | None = None,
    priority: int = 0,
    reason: str = "",
    actor: str = "",
) -> CreditGrant:
    """Grant micro-credits from `starts_at` (now) until `expires_at` (never) and publish.

    Raises `ValueError` for an amount that is not positive, and for a grant that would expire before
    it starts or is over already.
    """
    if not 0 < amount_micro <= MAXIMUM_MICRO:
        raise ValueError("a grant is more than 0 and at most 100,000,000,000 credits")
    with transaction.atomic():
        [account] = lock_organization(organization.pk, resource)
        now = timezone.now()
        starts_at = starts_at or now
        if expires_at is not None and expires_at <= max(starts_at, now):
            raise ValueError("a grant expires after it starts, and in the future")
        grant = CreditGrant.objects.create(
            account=account,
            amount_micro=amount_micro,
            starts_at=starts_at,
            expires_at=expires_at,
            priority=priority,
            actor=actor[:200],
            reason=reason[:500],
            created_at=now,
        )
        audit.record(
            AuditEntry.Action.CREDITS_GRANTED,
            account.organization,
            actor=actor,
            reason=reason,
            resource=resource,
            grant=grant.pk,
            amount_micro=amount_micro,
        )
        settle(account, now)
    return grant


def void_grant(grant: CreditGrant, *, actor: str = "", reason: str = "") -> None:
    """Take back what is left of a grant; what it covered stays covered. Voided twice is once."""
    with transaction.atomic():
        [account] = lock_accounts([grant.account_id])
        grant.refresh_from_db()
        if grant.voided_at is not None:
            return
        now = timezone.now()
        grant.voided_at = now
        grant.save(update_fields=["voided_at"])
        audit.record(
            AuditEntry.Action.GRANT_VOIDED,
            account.organization,
            actor=actor,
            reason=reason,
            resource=account.resource,
            grant=grant.pk,
        )
        settle(account, now)
