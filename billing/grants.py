"""Credit grants: top-ups beside the periodic limit."""

from datetime import UTC, datetime

from django.db import transaction
from django.utils import timezone

from billing import audit
from billing.account_locks import lock_accounts
from billing.allowances import allow, locked
from billing.credits import MAXIMUM_MICRO
from billing.decision import FAR_FUTURE
from billing.enforcement import settle
from billing.models import AuditEntry, CreditGrant
from projects.models import Organization

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


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

    Raises `ValueError` for an amount that is not positive and for times that `check_times` refuses.
    """
    if not 0 < amount_micro <= MAXIMUM_MICRO:
        raise ValueError("a grant is more than 0 and at most 100,000,000,000 credits")
    with locked(organization, resource) as (account, now):
        starts_at = starts_at or now
        check_times(starts_at, expires_at, now)
        grant = CreditGrant(
            account=account,
            amount_micro=amount_micro,
            starts_at=starts_at,
            expires_at=expires_at,
            priority=priority,
            created_at=now,
        )
        allow(AuditEntry.Action.CREDITS_GRANTED, grant, actor=actor, reason=reason)
        settle(account, now)
    return grant


def check_times(starts_at: datetime, expires_at: datetime | None, now: datetime) -> None:
    """Raise `ValueError` for a grant that could never be spent or lies beyond all calendars."""
    if not _EARLIEST <= starts_at < FAR_FUTURE:
        raise ValueError("A grant starts between the years 2000 and 3000.")
    if expires_at is None:
        return
    if expires_at <= max(starts_at, now):
        raise ValueError("A grant expires after it starts, and in the future.")
    if expires_at >= FAR_FUTURE:
        raise ValueError("A grant expires before the year 3000, or never.")


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
            voided_at=now.isoformat(),
        )
        settle(account, now)
