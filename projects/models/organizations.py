"""Organizations, their projects, and their members."""

import uuid
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db import models, transaction
from django.utils import timezone

from projects import credential_cache, revocation
from projects.tokens import generate_project_api_token


class User(AbstractUser):  # type: ignore[django-manager-missing]
    """A person who logs in to the admin or authorizes a desktop client."""

    email = models.EmailField(unique=True, null=True, blank=True)  # type: ignore[assignment]

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the user. If they are inactive, announce their credentials as revoked.

        An empty address is stored as NULL, so that the unique constraint ignores it.
        """
        self.email = self.email or None
        with transaction.atomic():
            super().save(*args, **kwargs)
            if not self.is_active:
                revocation.announce(self.live_credentials())

    def live_credentials(self, organization: "Organization | None" = None) -> list[str]:
        """Return the SHA-256 of each credential that is not revoked or expired.

        Pass an organization to get only its credentials.
        """
        keys = self.personal_api_keys.filter(revoked_at=None)
        tokens = self.oauth_access_tokens.filter(expires__gt=timezone.now())
        if organization is not None:
            keys = keys.filter(organization=organization)
            tokens = tokens.filter(project__organization=organization)
        return [
            *keys.values_list("sha256", flat=True),
            *tokens.values_list("token_checksum", flat=True),
        ]


class Organization(models.Model):
    """The customer who pays. Its projects share its limits, grants and totals."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200, unique=True)
    is_active = models.BooleanField(
        default=True, help_text="An inactive organization is limited in every credit bucket."
    )
    unmetered_gateway = models.BooleanField(
        default=False,
        help_text="Allow the unmetered gateway product llm_gateway to this organization's keys.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    members: models.ManyToManyField["User", "Membership"] = models.ManyToManyField(
        User, through="Membership", related_name="organizations"
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ProjectManager(models.Manager["Project"]):
    """Fetches projects with their organizations, which are part of their displayed names."""

    def get_queryset(self) -> models.QuerySet["Project"]:
        """Return projects with their organizations, so that a list of projects is one query."""
        return super().get_queryset().select_related("organization")


class Project(models.Model):  # type: ignore[django-manager-missing]
    """A project. Usage is metered by project; each workspace and task belongs to exactly one."""

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="projects"
    )
    name = models.CharField(max_length=200)
    api_token = models.CharField(
        max_length=64,
        unique=True,
        default=generate_project_api_token,
        editable=False,
        help_text="Public identifier of the project (phc_…), member of the quota sorted sets.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ProjectManager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["organization", "name"], name="project_name_unique")
        ]

    def __str__(self) -> str:
        # Two organizations may each have a project called "web".
        return f"{self.organization} / {self.name}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the project and invalidate cached credentials, which list projects and tokens."""
        with transaction.atomic():
            super().save(*args, **kwargs)
            credential_cache.renew_generation_on_commit()


class MembershipQuerySet(models.QuerySet["Membership"]):
    """Memberships. Deleting one also ends the access of its user's credentials."""

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete, and announce the credentials that lose access."""
        with transaction.atomic():
            ended = list(self.select_related("user", "organization"))
            deleted = super().delete()
            for membership in ended:
                membership.announce_end()
        return deleted


class Membership(models.Model):
    """A user's membership of an organization, and so of all its projects."""

    class Role(models.TextChoices):
        MEMBER = "member"
        ADMIN = "admin"

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.MEMBER)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "user"], name="membership_unique")
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.organization}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save. If the user or organization changed, announce the end of the old membership."""
        with transaction.atomic():
            former = None if self._state.adding else Membership.objects.filter(pk=self.pk).first()
            super().save(*args, **kwargs)
            if former and (former.user_id, former.organization_id) != (
                self.user_id,
                self.organization_id,
            ):
                former.announce_end()

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete, and announce the credentials that lose access."""
        with transaction.atomic():
            deleted = super().delete(*args, **kwargs)
            self.announce_end()
        return deleted

    def announce_end(self) -> None:
        """Announce the credentials of this user in this organization as revoked."""
        revocation.announce(self.user.live_credentials(self.organization))
