"""Credit grants: top-ups in addition to the periodic limit."""

from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import transaction
from django.utils import timezone

from billing import audit
from billing.account_locks import lock_accounts
from billing.allowances.audited_rows import locked_account, save_with_audit
from billing.credits import MAXIMUM_MICRO
from billing.decisions.decision import FAR_FUTURE
from billing.decisions.enforcement import recut_and_enforce
from billing.models import Account, AuditEntry, CreditGrant
from projects.models import Organization

LONGEST_KEY = 100
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


def grant_credits(
    organization: Organization,
    resource: str,
    amount_micro: int,
    *,
    starts_at: datetime | None = None,
    expires_at: datetime | None = None,
    priority: int = 0,
    idempotency_key: str = "",
    reason: str = "",
    actor: str = "",
) -> CreditGrant:
    """Grant micro-credits from `starts_at` (default: now) until `expires_at` (default: never).

    Publishes the result. Called again with the same idempotency key, it returns the earlier grant;
    keys never expire. Raises `ValueError` if the amount is not positive, if `check_times` rejects
    the times, or if the key was used for a different grant.
    """
    if not 0 < amount_micro <= MAXIMUM_MICRO:
        raise ValueError("a grant is more than 0 and at most 100,000,000,000 credits")
    with locked_account(organization, resource) as (account, now):
        asked = GrantRequest(amount_micro, starts_at, expires_at, priority)
        granted = find_grant_by_key(account, idempotency_key, asked)
        if granted is not None:
            return granted
        starts_at = starts_at or now
        check_times(starts_at, expires_at, now)
        grant = CreditGrant(
            account=account,
            amount_micro=amount_micro,
            starts_at=starts_at,
            expires_at=expires_at,
            priority=priority,
            idempotency_key=idempotency_key,
            created_at=now,
        )
        save_with_audit(AuditEntry.Action.CREDITS_GRANTED, grant, actor=actor, reason=reason)
        recut_and_enforce(account, now)
    return grant


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """What was asked for. `starts_at` is None for an immediate start."""

    amount_micro: int
    starts_at: datetime | None
    expires_at: datetime | None
    priority: int


def find_grant_by_key(
    account: Account, idempotency_key: str, asked: GrantRequest
) -> CreditGrant | None:
    """Return the grant with this key, or None.

    Raises `ValueError` if that grant differs from what is asked for now.
    """
    if len(idempotency_key) > LONGEST_KEY or not idempotency_key.isprintable():
        raise ValueError(f"an idempotency key has at most {LONGEST_KEY} printable characters")
    if not idempotency_key:
        return None
    grant = CreditGrant.objects.filter(account=account, idempotency_key=idempotency_key).first()
    if grant is None:
        return None
    starts_at = None if grant.starts_at == grant.created_at else grant.starts_at
    if asked != GrantRequest(grant.amount_micro, starts_at, grant.expires_at, grant.priority):
        raise ValueError("A different top-up was made with the same idempotency key.")
    return grant


def check_times(starts_at: datetime, expires_at: datetime | None, now: datetime) -> None:
    """Raise `ValueError` if the grant could never be spent or its dates are out of range."""
    if not _EARLIEST <= starts_at < FAR_FUTURE:
        raise ValueError("A grant must start between the years 2000 and 3000.")
    if expires_at is None:
        return
    if expires_at <= max(starts_at, now):
        raise ValueError("A grant must expire in the future, and after it starts.")
    if expires_at >= FAR_FUTURE:
        raise ValueError("A grant must expire before the year 3000, or never.")


def void_grant(grant: CreditGrant, *, actor: str = "", reason: str = "") -> None:
    """Take back what is left of a grant. What it has covered stays covered. Idempotent."""
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
        recut_and_enforce(account, now)
