"""Task participants: people whom the owner or an administrator lets write to a task's agent."""

from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Q


class TaskParticipant(models.Model):
    """A time during which a Slack user who is not a task's owner may write to its agent.

    Rows are never deleted, so they say who let whom join, and when.
    """

    task = models.ForeignKey(
        "coding_tasks.CodingTask", on_delete=models.CASCADE, related_name="participants"
    )
    slack_user_id = models.CharField("Slack user", max_length=32)
    added_by = models.CharField(
        max_length=200, help_text="The Slack user or the administrator who let them join."
    )
    added_at = models.DateTimeField()
    removed_by = models.CharField(max_length=200, blank=True, default="")
    removed_at = models.DateTimeField(
        null=True, blank=True, help_text="Empty: they may still write to the agent."
    )

    class Meta:
        ordering = ["-added_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["task", "slack_user_id"],
                condition=Q(removed_at=None),
                name="task_participant_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.slack_user_id} in {self.task}"


def joined_at(task: Any, user_id: str) -> datetime | None:
    """Return since when a user who is not the owner may write to the task, or None."""
    found = TaskParticipant.objects.filter(task=task, slack_user_id=user_id, removed_at=None)
    return found.values_list("added_at", flat=True).first()
