"""Slack workspaces. Each serves a project, and its channels can serve others."""

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from projects.encryption import EncryptedTextField
from projects.models.organizations import Project


class SlackWorkspace(models.Model):
    """An installation of the app in a Slack workspace or Enterprise organization.

    It serves one project, except in channels that have a project of their own (`ChannelProject`).
    """

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
    credits_channel_id = models.CharField(
        "credits channel",
        max_length=32,
        blank=True,
        default="",
        db_default="",
        help_text="Gets a message when credits run low and when there are credits again: a channel "
        "(C…) that the bot is in, or a person (U…). Empty: no messages.",
    )
    scopes = models.CharField(
        max_length=1000,
        blank=True,
        default="",
        db_default="",
        help_text="What Slack granted at the installation, comma-separated.",
    )
    is_active = models.BooleanField(default=True)
    installed_at = models.DateTimeField(auto_now_add=True)
    uninstalled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name", "team_id"]
        verbose_name = "Slack workspace"
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

    def distinct_id(self, user_id: str) -> str:
        """Return how usage events name a Slack user of this workspace."""
        return f"slack:{self.team_id or self.enterprise_id}:{user_id}"

    def project_in(self, channel_id: str) -> Project:
        """Return the project that is served in a channel, and pays for what is asked there."""
        # A query that loads workspaces can find out beforehand whether any channel has its own.
        if not getattr(self, "has_channel_projects", True):
            return self.project
        named = ChannelProject.objects.filter(
            workspace=self,
            channel_id=channel_id,
            project__organization=self.project.organization_id,
        )
        found = named.select_related("project__organization").first()
        return found.project if found else self.project


class ChannelProject(models.Model):
    """A channel that serves another project of the organization than the rest of its workspace.

    What is asked there uses that project's credits, caps, repositories and rules.
    """

    workspace = models.ForeignKey(
        SlackWorkspace, on_delete=models.CASCADE, related_name="channel_projects"
    )
    channel_id = models.CharField("channel", max_length=32)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="slack_channels")

    class Meta:
        ordering = ["workspace", "channel_id"]
        verbose_name = "project of a channel"
        verbose_name_plural = "projects of channels"
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "channel_id"], name="channel_project_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.channel_id}: {self.project}"

    def clean(self) -> None:
        """Require a project of the organization that the workspace belongs to."""
        if not self.workspace_id or not self.project_id:
            return
        if self.project.organization_id != self.workspace.project.organization_id:
            raise ValidationError({"project": "It belongs to another organization."})


class RotatingToken(models.Model):
    """How the bot token of a workspace is renewed, if the app has token rotation."""

    workspace = models.OneToOneField(
        SlackWorkspace, on_delete=models.CASCADE, related_name="rotating_token"
    )
    refresh_token = EncryptedTextField()
    expires_at = models.DateTimeField(help_text="When the bot token stops working.")
    refresh_at = models.DateTimeField(
        null=True,
        db_index=True,
        help_text="When to renew it. A process that does so moves this, so that no other does. "
        "Empty: it can't be renewed.",
    )
    problem = models.CharField(
        max_length=100, blank=True, default="", help_text="Why it was not renewed."
    )

    def __str__(self) -> str:
        return f"bot token of {self.workspace}"
