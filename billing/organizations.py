"""Create organizations and projects, rotate tokens, and switch organizations on and off.

Each function publishes in its own transaction, so that a new project or token of a limited
organization is limited from the commit on. It also invalidates cached credentials, because they
contain projects and their tokens.
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
    """Return a new organization with accounts. Raises `IntegrityError` if the name is taken."""
    with transaction.atomic():
        organization = Organization.objects.create(name=name)
        enforce(lock_organization(organization.pk), timezone.now())
    return organization


def create_project(organization: Organization, name: str) -> Project:
    """Return a new project that shares its organization's credits from the start.

    Raises `IntegrityError` if the organization already has a project of that name.
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
    """Give the project a new API token. A limited project is limited under the new one at once."""
    with transaction.atomic():
        lock_organization(project.organization_id)
        project.refresh_from_db()
        former, project.api_token = project.api_token, generate_project_api_token()
        manual_blocks.carry_over(project.organization_id, former, project.api_token)
        # Lock the change feed before the project's row. Saving a new token blocks writers of rows
        # that refer to the project. If such a writer held the change feed, we would deadlock.
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
    """Switch an organization off, which limits all its buckets, or on again."""
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
        # The unmetered product accepts only the keys of active organizations.
        working = organization.personal_api_keys.filter(revoked_at=None)
        revocation.announce(working.values_list("sha256", flat=True))
        enforce(accounts, timezone.now())
