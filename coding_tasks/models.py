"""Repositories, coding tasks in their threads, and the runs of tasks."""

import uuid

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from coding_tasks.clone_urls import validate_clone_url
from projects.models import Project, SlackWorkspace

validate_full_name = RegexValidator(
    r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9_.][\w.-]*$", "Write the repository as owner/name."
)


class Repository(models.Model):
    """A git repository that a project's coding tasks may work on."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="repositories")
    full_name = models.CharField(
        max_length=200,
        validators=[validate_full_name],
        help_text="The name that people use: owner/name.",
    )
    clone_url = models.CharField(
        max_length=500,
        validators=[validate_clone_url],
        help_text="Where git fetches it from, without a credential.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["full_name"]
        verbose_name_plural = "repositories"
        constraints = [
            models.UniqueConstraint(fields=["project", "full_name"], name="repository_unique")
        ]

    def __str__(self) -> str:
        return self.full_name


class ChannelDefault(models.Model):
    """The repository that a channel's mentions are about unless they say otherwise."""

    workspace = models.ForeignKey(SlackWorkspace, on_delete=models.CASCADE)
    channel_id = models.CharField(max_length=32)
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "channel_id"], name="channel_default_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.channel_id}: {self.repository}"


class CodingTask(models.Model):
    """One request made in a Slack thread. A thread has at most one active task."""

    class State(models.TextChoices):
        ACTIVE = "active"
        DONE = "done"
        FAILED = "failed"
        STOPPED = "stopped"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="coding_tasks")
    repository = models.ForeignKey(Repository, on_delete=models.PROTECT)
    workspace = models.ForeignKey(SlackWorkspace, on_delete=models.PROTECT)
    channel_id = models.CharField(max_length=32)
    thread_ts = models.CharField(max_length=32)
    owner_slack_user_id = models.CharField(max_length=32)
    title = models.CharField(max_length=200)
    permalink = models.URLField(max_length=500, blank=True, default="")
    workflow_id = models.CharField(max_length=255, unique=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.ACTIVE)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "channel_id", "thread_ts"],
                condition=Q(state="active"),
                name="coding_task_one_active_per_thread",
            )
        ]
        indexes = [models.Index(fields=["channel_id", "thread_ts"], name="coding_task_in_thread")]

    def __str__(self) -> str:
        return self.title


class TaskRun(models.Model):
    """One turn of a coding task: a request and the agent's answer to it."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        PAUSED = "paused", "paused: out of credits"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        STOPPED = "stopped", "stopped by a person"

    UNFINISHED = (State.QUEUED, State.RUNNING, State.PAUSED)
    FINAL = (State.SUCCEEDED, State.STOPPED)
    """States that no later attempt at the run changes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    task = models.ForeignKey(CodingTask, on_delete=models.CASCADE, related_name="runs")
    message_ts = models.CharField(max_length=32, help_text="The message that this turn answers.")
    request = models.TextField()
    answer = models.TextField(blank=True, default="")
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    error = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    left_at_pause = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="While paused: the fewest micro-credits left since then, too few for the work. "
        "Empty if no work may start at all.",
    )
    woken_at = models.DateTimeField(
        null=True, blank=True, help_text="While paused: when its workflow was told of new credits."
    )
    waits = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="How often it began to wait for credits: when it was paused, and after each "
        "check that found too few.",
    )

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["task", "message_ts"], name="task_run_unique_message")
        ]
        indexes = [
            models.Index(
                fields=["created_at"],
                condition=Q(state="paused", woken_at=None),
                name="task_run_to_wake",
            )
        ]

    def __str__(self) -> str:
        return f"{self.task} / {self.message_ts}"
