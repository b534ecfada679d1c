"""Repositories, coding tasks in their threads, and the runs of tasks."""

import uuid

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from coding_tasks.agent_choice import known_agents
from coding_tasks.git_credentials import GitCredential
from coding_tasks.kept_changes import RunChange, TaskBranch
from coding_tasks.repositories.clone_urls import validate_clone_url
from projects.models import Project, SlackWorkspace

__all__ = [
    "ChannelDefault",
    "CodingTask",
    "GitCredential",
    "ProjectAgent",
    "Repository",
    "RunChange",
    "RunEvent",
    "TaskBranch",
    "TaskRun",
    "validate_full_name",
]

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
    credential = models.ForeignKey(
        GitCredential,
        on_delete=models.RESTRICT,
        null=True,
        blank=True,
        related_name="repositories",
        help_text="Without one, changes are not pushed but kept as diffs.",
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

    def clean(self) -> None:
        """Refuse another project's credential."""
        own = GitCredential.objects.filter(project=self.project_id)
        if self.credential_id is not None and not own.filter(pk=self.credential_id).exists():
            raise ValidationError({"credential": "It belongs to another project."})


class ProjectAgent(models.Model):
    """The agent that does a project's coding tasks, unless a mention names another."""

    project = models.OneToOneField(Project, on_delete=models.CASCADE, related_name="agent_choice")
    agent = models.CharField(
        max_length=30,
        help_text="small, claude, codex, mini or one of this server's own; reader answers "
        "questions and changes nothing.",
    )
    model = models.CharField(
        max_length=100,
        blank=True,
        default="",
        help_text="Of this agent. Empty: the server's default for the API that it speaks.",
    )

    class Meta:
        verbose_name = "agent of a project"
        verbose_name_plural = "agents of projects"

    def __str__(self) -> str:
        return f"{self.project}: {self.agent}"

    @classmethod
    def of(cls, project: Project) -> "ProjectAgent":
        """Return the project's choice, or an unsaved row with the server's default."""
        chosen = cls.objects.filter(project=project).first()
        return chosen or cls(project=project, agent=settings.DEFAULT_AGENT)

    def clean(self) -> None:
        """Require an agent that this server knows."""
        if self.agent not in known_agents():
            names = ", ".join(sorted(known_agents()))
            raise ValidationError({"agent": f"Write one of these: {names}."})


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
    agent = models.CharField(
        max_length=30,
        blank=True,
        default="",
        db_default="",
        help_text="The agent that does the work.",
    )
    session = models.CharField(
        max_length=100,
        blank=True,
        default="",
        db_default="",
        help_text="The agent's name for the conversation, to go on with it.",
    )
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
    FINAL = (State.SUCCEEDED, State.FAILED, State.STOPPED)
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


class RunEvent(models.Model):
    """One thing that an agent did in a run, for the transcript. Its texts are untrusted."""

    run = models.ForeignKey(TaskRun, on_delete=models.CASCADE, related_name="events")
    number = models.PositiveIntegerField()
    event = models.JSONField(help_text="As in `coding_tasks.agents.events`.")

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["run", "number"], name="run_event_unique_number")
        ]

    def __str__(self) -> str:
        return f"{self.run_id} / {self.number}"
