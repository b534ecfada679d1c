"""What changes who has an account: organizations and projects made, switched and renamed.

Each of these publishes in its own transaction, so that a new project or a rotated token of a
limited organization is limited from the commit on, and makes processes forget what they remember of
credentials, which carries projects and their tokens.
"""

from django.db import transaction
from django.utils import timezone

from billing import audit
from billing.account_locks import lock_organization
from billing.allowances.caps import recount_caps
from billing.decisions.enforcement import enforce
from billing.models import AuditEntry
from projects import change_feed, revocation
from projects.credential_cache import renew_generation_on_commit
from projects.models import Organization, Project
from projects.tokens import generate_project_api_token
from quota.published import manual_blocks
from quota.published.publication import republish_project


def create_organization(name: str) -> Organization:
    """Make an organization with its accounts. Raises `IntegrityError` for a name that is taken."""
    with transaction.atomic():
        organization = Organization.objects.create(name=name)
        enforce(lock_organization(organization.pk), timezone.now())
    return organization


def create_project(organization: Organization, name: str) -> Project:
    """Make a project that shares its organization's credits from its first moment on.

    Raises `IntegrityError` for a name that the organization has already.
    """
    with transaction.atomic():
        accounts = lock_organization(organization.pk)
        project = Project.objects.create(organization=organization, name=name)
        renew_generation_on_commit()
        now = timezone.now()
        recount_caps(accounts, now)
        enforce(accounts, now)
        republish_project(project)
    return project


def rotate_api_token(project: Project, *, actor: str = "", reason: str = "") -> None:
    """Give the project a new API token; a limited project is limited under the new one at once."""
    with transaction.atomic():
        lock_organization(project.organization_id)
        project.refresh_from_db()
        former, project.api_token = project.api_token, generate_project_api_token()
        manual_blocks.carry_over(project.organization_id, former, project.api_token)
        # Before the project's row, which a new token locks against rows that refer to it: whoever
        # writes such rows while holding the change feed would wait for us, and we for them.
        change_feed.cursor(lock=True)
        project.save(update_fields=["api_token"])
        audit.record(
            AuditEntry.Action.TOKEN_ROTATED,
            project.organization,
            actor=actor,
            reason=reason,
            project=project.pk,
        )
        renew_generation_on_commit()
        republish_project(project)


def set_organization_active(
    organization: Organization, active: bool, *, actor: str = "", reason: str = ""
) -> None:
    """Switch an organization off, which limits every bucket of it, or on again."""
    with transaction.atomic():
        accounts = lock_organization(organization.pk)
        Organization.objects.filter(pk=organization.pk).update(is_active=active)
        organization.is_active = active
        for account in accounts:
            account.organization.is_active = active
        audit.record(
            AuditEntry.Action.ORGANIZATION_ACTIVATED
            if active
            else AuditEntry.Action.ORGANIZATION_DEACTIVATED,
            organization,
            actor=actor,
            reason=reason,
        )
        renew_generation_on_commit()
        # An unmetered gateway is open to the keys of an active organization only.
        working = organization.personal_api_keys.filter(revoked_at=None)
        revocation.announce(working.values_list("sha256", flat=True))
        enforce(accounts, timezone.now())
