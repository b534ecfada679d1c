"""Repositories, coding tasks in their threads, and the runs of tasks."""

import uuid

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from billing.products import BUCKETS
from coding_tasks.agent_choice import READER, default_model, known_agents
from coding_tasks.models.git_credentials import GitCredential
from coding_tasks.models.participants import joined_at
from coding_tasks.repositories.clone_urls import validate_clone_url
from projects.models import Membership, Project, SlackWorkspace, User

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
    """One conversation with an agent: in a Slack thread, or over the API.

    It is about a repository, unless its author chose none; then the agent only answers.

    A thread has at most one active task. A task without a thread is active while it has work; its
    next message makes it active again.
    """

    class Origin(models.TextChoices):
        SLACK = "slack", "a Slack thread"
        API = "api", "the API"
        DESKTOP = "desktop", "a desktop client"

    class State(models.TextChoices):
        ACTIVE = "active"
        DONE = "done"
        FAILED = "failed"
        STOPPED = "stopped"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="coding_tasks")
    repository = models.ForeignKey(
        Repository,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        help_text="Empty: a question that needs no code.",
    )
    origin = models.CharField(
        max_length=10,
        choices=Origin.choices,
        default=Origin.SLACK,
        db_default=Origin.SLACK,
        help_text="Where it was asked for. This decides which credits pay for it.",
    )
    workspace = models.ForeignKey(SlackWorkspace, on_delete=models.PROTECT, null=True, blank=True)
    channel_id = models.CharField(max_length=32, blank=True, default="")
    thread_ts = models.CharField(max_length=32, blank=True, default="")
    owner_slack_user_id = models.CharField(max_length=32, blank=True, default="")
    user = models.ForeignKey(
        User,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="coding_tasks",
        help_text="Its owner, if it has no thread. Empty: a program with a key of its own.",
    )
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
    model = models.CharField(
        max_length=100,
        blank=True,
        default="",
        db_default="",
        help_text="The model that was asked for. Empty: the project's or the server's choice.",
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
            ),
            models.CheckConstraint(
                condition=Q(origin="slack", workspace__isnull=False, user=None)
                | (~Q(origin="slack") & Q(workspace=None)),
                name="coding_task_thread_fits_origin",
            ),
            models.CheckConstraint(
                condition=Q(origin="slack") | Q(repository__isnull=False),
                name="coding_task_has_repository",
            ),
        ]
        indexes = [
            models.Index(fields=["channel_id", "thread_ts"], name="coding_task_in_thread"),
            models.Index(
                fields=["workspace", "owner_slack_user_id", "-created_at"],
                name="coding_task_of_slack_user",
            ),
            models.Index(
                fields=["project", "-created_at"],
                condition=Q(origin="slack"),
                name="coding_task_of_project",
            ),
            models.Index(
                fields=["project", "-created_at"],
                condition=~Q(origin="slack"),
                name="coding_task_without_thread",
            ),
            models.Index(
                fields=["created_at"],
                condition=Q(state="active") & ~Q(origin="slack"),
                name="coding_task_to_look_for",
            ),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def has_thread(self) -> bool:
        """Whether it was asked for in a Slack thread, which gets its answers."""
        return self.origin == self.Origin.SLACK

    @property
    def product(self) -> str:
        """The only gateway product that its runs may call."""
        return "slack_app" if self.has_thread else "posthog_code"

    @property
    def repository_name(self) -> str:
        """The name of its repository, or an empty string if it has none."""
        return self.repository.full_name if self.repository else ""

    @property
    def repository_to_change(self) -> Repository:
        """Its repository. Only tasks of the agent that only reads can lack one."""
        assert self.repository is not None, "tasks without a repository change nothing"
        return self.repository

    @property
    def needs_sandbox(self) -> bool:
        """Whether its agent runs in a sandbox, because it does more than read files."""
        return self.agent not in ("", READER)

    def model_to_use(self) -> str:
        """Return its own model, else the project's for this agent, else the server's."""
        if self.model:
            return self.model
        chosen = ProjectAgent.of(self.project)
        model = chosen.model if chosen.agent == self.agent else ""
        return model or default_model(self.agent)

    @property
    def resource(self) -> str:
        """The bucket of credits that pays for it."""
        resource = BUCKETS[self.product]
        assert resource is not None, "the products of tasks are metered"
        return resource

    @property
    def distinct_id(self) -> str:
        """How usage events and caps name its owner, as for the owner's own calls."""
        if self.workspace is not None:
            return self.workspace.distinct_id(self.owner_slack_user_id)
        return distinct_id_of(self.user_id, self.project_id)

    def accepts(self, user_id: str) -> bool:
        """Return whether a Slack user may write to its agent: the owner or a participant."""
        return user_id == self.owner_slack_user_id or joined_at(self, user_id) is not None

    def accepts_reply(self, user_id: str, ts: str) -> bool:
        """Return whether a reply that does not mention the bot is for its agent.

        What participants wrote before they joined is not.
        """
        if user_id == self.owner_slack_user_id:
            return True
        since = joined_at(self, user_id)
        return since is not None and float(ts) >= since.timestamp()

    def owner_has_left(self) -> bool:
        """Return whether the user who asked for it may no longer use the project."""
        if self.user_id is None:
            return False
        return not Membership.objects.filter(
            user=self.user_id, user__is_active=True, organization__projects=self.project_id
        ).exists()


def distinct_id_of(user_id: int | None, project_id: int) -> str:
    """Return how the gateway names the owner of a credential in usage events."""
    return f"project-{project_id}" if user_id is None else str(user_id)


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
    message_ts = models.CharField(
        max_length=32,
        help_text="The message that this turn answers. Without a thread it is the run's own id.",
    )
    author_slack_user_id = models.CharField(
        "author",
        max_length=32,
        blank=True,
        default="",
        db_default="",
        help_text="Who asked for this turn, if that is not the task's owner. It counts as theirs.",
    )
    request = models.TextField()
    answer = models.TextField(blank=True, default="")
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    error = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    uncollected_since = models.DateTimeField(
        null=True,
        blank=True,
        help_text="When the agent's turn began whose work is not collected yet.",
    )
    place_wanted_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="When it first asked for one of its project's places for turns.",
    )
    has_place = models.BooleanField(default=False, db_default=False)
    left_at_pause = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="While paused: the fewest micro-credits left since then, too few for the work. "
        "Empty if no work may start at all.",
    )
    woken_at = models.DateTimeField(
        null=True, blank=True, help_text="While paused: when its workflow was told of new credits."
    )
    announced_at = models.DateTimeField(
        null=True, blank=True, help_text="Without a thread: when its workflow was told of it."
    )
    accepted_micro = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="The most micro-credits that it may cost, if somebody accepted a number. Empty: "
        "nobody was asked.",
    )
    used_all_accepted = models.BooleanField(
        default=False, db_default=False, help_text="Whether it ended because of that."
    )
    model = models.CharField(
        max_length=100,
        blank=True,
        default="",
        db_default="",
        help_text="The model that it began with. Empty: not known.",
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
            ),
            models.Index(
                fields=["created_at"],
                condition=Q(state="queued", announced_at=None),
                name="task_run_to_announce",
            ),
            models.Index(
                fields=["place_wanted_at"],
                condition=Q(place_wanted_at__isnull=False),
                name="task_run_in_line",
            ),
            models.Index(
                fields=["started_at"], condition=Q(state="running"), name="task_run_at_work"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task} / {self.message_ts}"

    @property
    def asked_by(self) -> str:
        """The Slack user who asked for it. Empty without a thread."""
        return self.author_slack_user_id or self.task.owner_slack_user_id

    @property
    def distinct_id(self) -> str:
        """How usage events and caps name who asked for it. What it uses counts as theirs."""
        if self.author_slack_user_id and self.task.workspace is not None:
            return self.task.workspace.distinct_id(self.author_slack_user_id)
        return self.task.distinct_id


class AcceptedRequest(models.Model):
    """An API request with an idempotency key, kept so that a repetition finds its run."""

    key_digest = models.CharField(
        max_length=64, unique=True, help_text="Of the key, and of what it is unique for."
    )
    body_digest = models.CharField(max_length=64)
    run = models.ForeignKey(TaskRun, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.key_digest[:12]


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
