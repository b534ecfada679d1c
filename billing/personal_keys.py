"""Creating and revoking personal API keys, with an entry in the audit trail."""

from collections.abc import Iterable

from django.db import transaction

from billing import audit
from billing.models import AuditEntry
from projects.authentication.credentials import issue_personal_api_key, revoke_personal_api_key
from projects.models import Organization, PersonalAPIKey, Project, User


def create(
    organization: Organization,
    label: str,
    scopes: Iterable[str],
    projects: Iterable[Project] = (),
    user: User | None = None,
    *,
    actor: str,
) -> tuple[PersonalAPIKey, str]:
    """Make a key, and return its row and the key itself, which cannot be read again.

    Raises `ValueError` for an unknown scope or a project of another organization.
    """
    with transaction.atomic():
        key, plain = issue_personal_api_key(organization, label, scopes, projects, user)
        audit.record(
            AuditEntry.Action.KEY_CREATED,
            organization,
            actor=actor,
            key=key.pk,
            label=key.label,
            mask=key.mask,
            scopes=", ".join(key.scopes),
        )
    return key, plain


def revoke(key: PersonalAPIKey, *, actor: str, reason: str) -> None:
    """Revoke a key for good."""
    with transaction.atomic():
        revoke_personal_api_key(key)
        audit.record(
            AuditEntry.Action.KEY_REVOKED,
            key.organization,
            actor=actor,
            reason=reason,
            key=key.pk,
            label=key.label,
            mask=key.mask,
        )
