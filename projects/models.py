"""Who: organizations, their projects and members, credentials, and the Slack workspaces they serve."""

import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from oauth2_provider.models import (
    AbstractAccessToken,
    AbstractApplication,
    AbstractIDToken,
    AbstractRefreshToken,
)

from projects.encryption import EncryptedTextField
from projects.tokens import generate_project_api_token


class User(AbstractUser):
    """A person who logs in to the admin or authorizes a desktop client."""

    email = models.EmailField(unique=True, null=True, blank=True)

    def save(self, *args: object, **kwargs: object) -> None:
        """Store no address as NULL, so that uniqueness binds only real addresses."""
        self.email = self.email or None
        super().save(*args, **kwargs)  # type: ignore[arg-type]


class Organization(models.Model):
    """Who pays. Limits, grants and usage totals belong to the organization; its projects share them."""

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
    members: models.ManyToManyField = models.ManyToManyField(
        User, through="Membership", related_name="organizations"
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Project(models.Model):
    """What is metered: every credential, workspace and task belongs to exactly one project."""

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

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["organization", "name"], name="project_name_unique")
        ]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A user's place in an organization, and so in all its projects."""

    class Role(models.TextChoices):
        MEMBER = "member"
        ADMIN = "admin"

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.MEMBER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "user"], name="membership_unique")
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.organization}"


class PersonalAPIKey(models.Model):
    """A long-lived credential (`phx_…`). Only its SHA-256 is kept; it is shown once, when made.

    It covers the projects listed, or every project of the organization when none is listed.
    """

    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, related_name="personal_api_keys"
    )
    user = models.ForeignKey(
        User,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="personal_api_keys",
        help_text="Empty for a key that an operator made for a program.",
    )
    label = models.CharField(max_length=100)
    sha256 = models.CharField(max_length=64, unique=True, editable=False)
    mask = models.CharField(max_length=20, editable=False, help_text="How the key begins and ends.")
    scopes = models.JSONField(default=list)
    projects: models.ManyToManyField = models.ManyToManyField(
        Project, blank=True, related_name="personal_api_keys"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.label} ({self.mask})"


class OAuthApplication(AbstractApplication):
    """An OAuth client, such as a desktop application; in this app because tokens refer to it."""


class OAuthAccessToken(AbstractAccessToken):
    """An OAuth access token (`pha_…`), stored hashed, bound to at most one project and one task run.

    Tokens minted for a coding task carry `project`, `task_run_id` and `products`. Tokens that a
    desktop client obtained carry the project the user chose when authorizing.
    """

    project = models.ForeignKey(
        Project, null=True, blank=True, on_delete=models.CASCADE, related_name="oauth_access_tokens"
    )
    task_run_id = models.UUIDField(null=True, blank=True, db_index=True)
    products = models.JSONField(
        default=list, blank=True, help_text="Gateway products it may call; empty: by its kind."
    )


class OAuthRefreshToken(AbstractRefreshToken):
    """A refresh token (`phr_…`), stored hashed; in this app because access tokens refer to it."""

    class Meta(AbstractRefreshToken.Meta):
        pass


class OAuthIDToken(AbstractIDToken):
    """An OpenID Connect ID token; in this app because access tokens refer to it. Not issued."""


class SlackWorkspace(models.Model):
    """An installation of the app in a Slack workspace or Enterprise organization. Serves one project."""

    class Access(models.TextChoices):
        EVERYONE = "everyone", "everyone: full members of the workspace"
        MEMBERS = "members", "members: people whose e-mail belongs to a member of the project"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="slack_workspaces")
    team_id = models.CharField(
        max_length=32, blank=True, default="", help_text="Empty for an org-wide installation."
    )
    enterprise_id = models.CharField(max_length=32, blank=True, default="")
    name = models.CharField(max_length=200, blank=True, default="")
    app_id = models.CharField(max_length=32, blank=True, default="")
    bot_user_id = models.CharField(max_length=32)
    bot_id = models.CharField(max_length=32, blank=True, default="")
    bot_token = EncryptedTextField()
    access = models.CharField(max_length=10, choices=Access.choices, default=Access.EVERYONE)
    is_active = models.BooleanField(default=True)
    installed_at = models.DateTimeField(auto_now_add=True)
    uninstalled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name", "team_id"]
        constraints = [
            models.UniqueConstraint(
                fields=["team_id"], condition=~Q(team_id=""), name="slack_workspace_team_unique"
            ),
            models.UniqueConstraint(
                fields=["enterprise_id"],
                condition=Q(team_id="") & ~Q(enterprise_id=""),
                name="slack_workspace_enterprise_unique",
            ),
            models.CheckConstraint(
                condition=~Q(team_id="") | ~Q(enterprise_id=""),
                name="slack_workspace_identified",
            ),
        ]

    def __str__(self) -> str:
        return self.name or self.team_id or self.enterprise_id


class Change(models.Model):
    """One row of the change feed: what processes outside Django must hear of.

    `version` is assigned in commit order: see `projects.change_feed.append`.
    """

    class Kind(models.TextChoices):
        QUOTA = "quota"
        CREDENTIAL_REVOKED = "credential_revoked"

    version = models.BigIntegerField(primary_key=True)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    payload = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ["version"]

    def __str__(self) -> str:
        return f"{self.version} {self.kind}"


class ChangeCursor(models.Model):
    """The one row whose lock orders the change feed; `feed` names this database's feed."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    version = models.BigIntegerField(default=0)
    feed = models.UUIDField(default=uuid.uuid4, editable=False)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="change_cursor_is_single")]

    def __str__(self) -> str:
        return str(self.version)
