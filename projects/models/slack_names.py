"""What people call Slack's users and channels."""

from django.db import models
from django.db.models import Q

from projects.models.slack_workspaces import SlackWorkspace


class SlackName(models.Model):
    """The name of a user (U…, W…) or channel (C…, G…) of a workspace, as Slack last gave it.

    `is_due` asks a task to look the name up. An erased name is never looked up again.
    """

    workspace = models.ForeignKey(SlackWorkspace, on_delete=models.CASCADE, related_name="+")
    slack_id = models.CharField(max_length=32)
    name = models.CharField(max_length=200, blank=True, default="")
    is_due = models.BooleanField(default=True)
    is_erased = models.BooleanField(default=False)
    looked_up_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "slack_id"], name="slack_name_unique")
        ]
        indexes = [
            models.Index(
                fields=["workspace"], condition=Q(is_due=True), name="slack_name_still_due"
            )
        ]

    def __str__(self) -> str:
        return self.name or self.slack_id
