"""Mentions, follow-ups, replies and notices: the rows that make each step happen once."""

import uuid

from django.db import models
from django.utils import timezone

from coding_tasks.models import TaskRun
from coding_tasks.reading.assignments import trace_of
from projects.models import Project, SlackWorkspace, User
from workflows.mention_types import workflow_id

ERASED = "[erased]"
"""Replaces texts that were erased."""


class Mention(models.Model):
    """One message that asks something of the bot, recorded before Slack is answered.

    Most of them mention the bot. A reply that takes up its author's earlier request also counts as
    a mention, and so do an order to stop and a click on a button that starts work again.

    The unique constraint stops redeliveries, concurrent copies, and the `message` event that comes
    with an `app_mention`. If the request that wrote a row dies, the row stays `received`, and the
    sweep decides about it.
    """

    class State(models.TextChoices):
        RECEIVED = "received", "received: to be decided about"
        STARTED = "started", "started: its workflow is running"
        REFUSED = "refused", "refused, and said so in the thread"
        FORWARDED = "forwarded", "forwarded to the running task of the thread"
        ANSWERED = "answered", "answered in the thread"
        FAILED = "failed", "failed, and said so in the thread"
        ASKED = "asked", "asked what to do: it had no text"
        STOPPED = "stopped", "stopped by its author, or the order that stopped another"

    OPEN = (State.RECEIVED, State.STARTED)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(SlackWorkspace, on_delete=models.CASCADE, related_name="mentions")
    team_id = models.CharField(max_length=32)
    channel_id = models.CharField(max_length=32)
    ts = models.CharField(
        max_length=32, help_text="Slack's identity of the message in its channel."
    )
    thread_ts = models.CharField(max_length=32, help_text="Root of the thread; `ts` at top level.")
    user_id = models.CharField(max_length=32)
    text = models.TextField()
    takes_up = models.OneToOneField(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="taken_up_by",
        help_text="The author's earlier, unanswered request in the thread, which this one repeats. "
        "Each is taken up at most once.",
    )
    chosen_repository = models.IntegerField(
        null=True,
        blank=True,
        help_text="The id of the repository that its author chose before it started. 0: none.",
    )
    repeats = models.OneToOneField(
        TaskRun,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="repeated_by",
        help_text="The failed or stopped run that this mention starts again or goes on with. Each "
        "is repeated at most once.",
    )
    goes_on = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether it goes on with the stopped run, instead of starting it again.",
    )
    is_click = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether it was a click on a button, at the time `ts`, and not a message.",
    )
    event_id = models.CharField(max_length=64, blank=True, default="")
    state = models.CharField(max_length=10, choices=State.choices, default=State.RECEIVED)
    outcome = models.CharField(
        max_length=200, blank=True, default="", help_text="Why it ended as it did, in words."
    )
    workflow_id = models.CharField(max_length=255, blank=True, default="", db_index=True)
    lease_until = models.DateTimeField(
        null=True,
        blank=True,
        help_text="Until then only one process decides about the mention.",
    )
    received_at = models.DateTimeField(auto_now_add=True, db_index=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-received_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "channel_id", "ts"], name="mention_unique_message"
            )
        ]
        indexes = [
            models.Index(
                fields=["received_at"],
                condition=models.Q(state="received"),
                name="mention_still_to_start",
            ),
            models.Index(
                fields=["workspace", "channel_id", "thread_ts"],
                condition=models.Q(state__in=["received", "started"]),
                name="mention_open_in_thread",
            ),
            models.Index(fields=["channel_id", "thread_ts"], name="mention_in_thread"),
            models.Index(fields=["user_id", "received_at"], name="mention_of_user"),
        ]

    def __str__(self) -> str:
        return f"{self.channel_id}/{self.ts}"

    @property
    def is_reply(self) -> bool:
        """Whether it was written below another message."""
        return self.thread_ts != self.ts

    @property
    def is_new(self) -> bool:
        """Whether it was still undecided when it was read."""
        return not self.workflow_id and not self.outcome

    @property
    def trace_id(self) -> str:
        """The trace id of all calls to models for this mention."""
        return trace_of(workflow_id(self.team_id, self.channel_id, self.ts))

    @property
    def project(self) -> Project:
        """The project that pays for it: the present one of its channel."""
        return self.workspace.project_in(self.channel_id)


class Notice(models.Model):
    """One message from the bot to a thread or a channel, such as a denial or an answer.

    Its unique `key` (for a denial, the mention) allows one row. The row is written before anything
    is sent. A Celery task, the workflow's activity or the sweep sends it, whichever comes first.
    """

    class Kind(models.TextChoices):
        DENIAL = "denial"
        NO_ACCESS = "no_access"
        NOT_YOUR_TASK = "not_your_task"
        PICKER = "picker"
        PICKER_REFUSAL = "picker_refusal"
        ANSWER = "answer"
        FAILURE = "failure"
        CREDITS = "credits", "credits: they run low, or are back"
        QUESTION = "question", "question: what should the bot do?"
        QUOTE = "quote", "quote: what work may cost, and whether to begin"
        STOP = "stop", "stop: what was stopped, or why nothing was"
        HINT = "hint", "hint: how to go on in a thread that has ended"
        DIFF = "diff", "diff: a change as a file"
        FILE = "file", "file: something that an agent left for people"
        PROGRESS = "progress", "progress: what a run is doing, edited until the run ends"
        OFFER = "offer", "offer: the author can ask for more credits"
        CREDIT_REQUEST = "credit_request", "credit request: somebody asks for more credits"

    class State(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending", "sending: claimed, outcome unknown until sent"
        SENT = "sent"
        GIVEN_UP = "given_up"
        WITHDRAWN = "withdrawn", "withdrawn: deleted from Slack, or never sent"

    UNSENT = (State.PENDING, State.SENDING)

    class Destination(models.TextChoices):
        THREAD = "thread"
        EPHEMERAL = "ephemeral", "ephemeral: shown to the user only"
        PARTS = "parts", "parts: several messages in the thread"
        FILE = "file", "file: a file in the thread"
        DM = "dm", "direct message: Slack refused the thread"
        DM_PARTS = "dm_parts", "several direct messages: Slack refused the thread"
        DM_FILE = "dm_file", "file in a direct message: Slack refused the thread"
        PAGE = "page", "page: kept here, because Slack refused it everywhere"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    key = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    workspace = models.ForeignKey(SlackWorkspace, on_delete=models.CASCADE, related_name="notices")
    mention = models.ForeignKey(
        Mention, null=True, blank=True, on_delete=models.CASCADE, related_name="notices"
    )
    channel_id = models.CharField(max_length=32)
    thread_ts = models.CharField(
        max_length=32, blank=True, help_text="Empty: at the root of the channel."
    )
    user_id = models.CharField(
        max_length=32, blank=True, help_text="The user to tell if the thread can't be told."
    )
    text = models.TextField()
    blocks = models.JSONField(
        default=list, blank=True, help_text="Block Kit blocks shown instead of the text, if any."
    )
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    destination = models.CharField(
        max_length=10, choices=Destination.choices, default=Destination.THREAD
    )
    messages_sent = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="How many of its messages were sent to this destination."
    )
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(
        default=timezone.now,
        help_text="When to send it. While sending, when the sender counts as dead.",
    )
    message_ts = models.CharField(max_length=32, blank=True, default="")
    error = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(
        null=True, blank=True, help_text="When it was posted. From then on it can be edited."
    )
    revision = models.PositiveIntegerField(
        default=0, db_default=0, help_text="How often its text was replaced."
    )
    edited_at = models.DateTimeField(
        null=True, blank=True, help_text="When its present text was last shown in Slack."
    )
    withdrawn = models.BooleanField(
        default=False, db_default=False, help_text="Whether Slack should no longer show it."
    )
    cost_micro = models.BigIntegerField(
        null=True, blank=True, help_text="The micro-credits that an answer says it used."
    )
    cost_due_at = models.DateTimeField(
        null=True, blank=True, help_text="When to compare that number with the ledger."
    )

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(
                fields=["next_attempt_at"],
                condition=models.Q(state__in=["pending", "sending"]),
                name="notice_still_to_send",
            ),
            models.Index(fields=["workspace", "channel_id", "thread_ts"], name="notice_thread"),
            models.Index(
                fields=["created_at"],
                condition=models.Q(kind="progress", withdrawn=False),
                name="notice_progress",
            ),
            models.Index(
                fields=["cost_due_at"],
                condition=models.Q(cost_due_at__isnull=False),
                name="notice_cost_to_check",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class SlackPause(models.Model):
    """A time during which no notice is sent to a workspace: see `workflows.slack.pauses`."""

    workspace = models.ForeignKey(SlackWorkspace, on_delete=models.CASCADE, related_name="+")
    method = models.CharField(
        max_length=60, blank=True, help_text="The method that Slack limited. Empty: all methods."
    )
    until = models.DateTimeField()
    silences = models.PositiveSmallIntegerField(
        default=0, help_text="How many calls in a row got no answer."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "method"], name="slack_pause_unique")
        ]

    def __str__(self) -> str:
        return f"{self.workspace_id} {self.method}"


class FollowUp(models.Model):
    """One further message for a task in the task's thread, for the workflow to handle.

    Write it in the transaction that locks its task (`coding_tasks.threads.lock_active_task`), so
    that the task does not finish while a message waits for it. A reply that comes before the task
    is written under the lock of the open mention that will make the task. The mention does not
    close without settling the reply (`workflows.closing`).
    """

    class State(models.TextChoices):
        RECEIVED = "received", "received: to be signalled to its workflow"
        SIGNALLED = "signalled", "signalled: its workflow knows of it"
        HANDLED = "handled", "handled: a run answers it"
        REFUSED = "refused", "refused for lack of credits"
        DROPPED = "dropped", "dropped: there was no task for it, or it had ended"

    WAITING = (State.RECEIVED, State.SIGNALLED)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(
        SlackWorkspace, on_delete=models.CASCADE, related_name="follow_ups"
    )
    channel_id = models.CharField(max_length=32)
    ts = models.CharField(max_length=32)
    thread_ts = models.CharField(max_length=32)
    user_id = models.CharField(max_length=32)
    text = models.TextField()
    addressed = models.BooleanField(help_text="Whether the reply mentions the bot.")
    workflow_id = models.CharField(max_length=255)
    state = models.CharField(max_length=10, choices=State.choices, default=State.RECEIVED)
    outcome = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="Why it was refused or dropped, in words.",
    )
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-received_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "channel_id", "ts"], name="follow_up_unique_message"
            )
        ]
        indexes = [
            models.Index(
                fields=["received_at"],
                condition=models.Q(state="received"),
                name="follow_up_still_to_signal",
            ),
            models.Index(
                fields=["workflow_id"],
                condition=models.Q(state__in=["received", "signalled"]),
                name="follow_up_waiting",
            ),
            models.Index(fields=["channel_id", "thread_ts"], name="follow_up_in_thread"),
            models.Index(fields=["user_id", "received_at"], name="follow_up_of_user"),
        ]

    def __str__(self) -> str:
        return f"{self.channel_id}/{self.ts}"


class ThreadReply(models.Model):
    """One reply that does not mention the bot, kept until it is clear whether it is for the bot.

    Slack may deliver a reply before the mention it follows. So a reply is recorded before its
    mention is looked up, and a mention before its replies are, and one of the two always finds the
    other (`workflows.intake.replies`). Most replies are not for the bot, so the rows are deleted
    after a few minutes.
    """

    workspace = models.ForeignKey(SlackWorkspace, on_delete=models.CASCADE, related_name="+")
    channel_id = models.CharField(max_length=32)
    ts = models.CharField(max_length=32)
    thread_ts = models.CharField(max_length=32)
    user_id = models.CharField(max_length=32)
    text = models.TextField()
    decided_at = models.DateTimeField(
        null=True, blank=True, help_text="When it was last found not to be for the bot."
    )
    received_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ["-received_at"]
        verbose_name_plural = "thread replies"
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "channel_id", "ts"], name="thread_reply_unique_message"
            )
        ]
        indexes = [
            models.Index(
                fields=["workspace", "channel_id", "thread_ts", "user_id"],
                name="thread_reply_of_author",
            ),
            models.Index(
                fields=["received_at"],
                condition=models.Q(decided_at=None),
                name="thread_reply_undecided",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.channel_id}/{self.ts}"


class CreditRequest(models.Model):
    """The author of a refused mention asks for more credits, so that the mention can run.

    It ends once: the mention runs because there are credits again, somebody declines, or nobody
    answers in time. `workflows.credit_requests` changes the state, under a lock on the row.
    """

    class State(models.TextChoices):
        ASKED = "asked", "asked: nobody has decided yet"
        APPROVED = "approved", "approved: the mention runs as soon as the gate lets it"
        RESUMED = "resumed", "resumed: there were credits, and the mention went on"
        DECLINED = "declined"
        LAPSED = "lapsed", "lapsed: there was no answer in time"
        DROPPED = "dropped", "dropped: the mention could not run any more"

    WAITING = (State.ASKED, State.APPROVED)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    mention = models.OneToOneField(Mention, on_delete=models.CASCADE, related_name="credit_request")
    state = models.CharField(max_length=10, choices=State.choices, default=State.ASKED)
    suggested_micro = models.BigIntegerField(
        help_text="The micro-credits that the button for this one task grants."
    )
    granted_micro = models.BigIntegerField(null=True, blank=True)
    reason = models.CharField(
        max_length=300, blank=True, default="", help_text="Why it was approved or declined."
    )
    decided_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    decider_slack_user_id = models.CharField(max_length=32, blank=True, default="")
    asked_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-asked_at"]
        indexes = [
            models.Index(
                fields=["asked_at"],
                condition=models.Q(state__in=["asked", "approved"]),
                name="credit_request_waiting",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.mention} {self.state}"


class CostConfirmation(models.Model):
    """Above which expected cost a project's runs ask before they begin."""

    project = models.OneToOneField(
        Project, on_delete=models.CASCADE, related_name="cost_confirmation"
    )
    ask_above_micro = models.BigIntegerField(
        null=True, blank=True, help_text="In micro-credits. Empty: never ask."
    )

    class Meta:
        ordering = ["project"]

    def __str__(self) -> str:
        return str(self.project)


class RunQuote(models.Model):
    """What a run was expected to cost before it began, and what its requester answered.

    Comparable runs are those of the same project, agent and model, or of the whole project if there
    are too few of those. `workflows.quotes` changes the state, under locks on the run and the row.
    """

    class State(models.TextChoices):
        SHOWN = "shown", "shown: nothing was asked"
        ASKED = "asked", "asked: nobody has answered yet"
        ACCEPTED = "accepted", "accepted: it runs for up to the offered credits"
        SMALLER = "smaller", "smaller: it runs for up to the smaller number of credits"
        CANCELLED = "cancelled"
        EXPIRED = "expired", "expired: nobody answered in time"
        DROPPED = "dropped", "dropped: the run ended before anybody answered"

    ANSWERS = (State.ACCEPTED, State.SMALLER, State.CANCELLED)

    class History(models.TextChoices):
        AGENT = "agent", "runs of the project's agent and model"
        PROJECT = "project", "runs of the project"
        NONE = "none", "no history yet"

    run = models.OneToOneField(
        TaskRun, primary_key=True, on_delete=models.CASCADE, related_name="quote"
    )
    history = models.CharField(max_length=10, choices=History.choices)
    runs_compared = models.PositiveIntegerField(default=0)
    low_micro = models.BigIntegerField(
        null=True, blank=True, help_text="Empty: too few runs for a lower end."
    )
    high_micro = models.BigIntegerField(null=True, blank=True)
    left_micro = models.BigIntegerField(
        null=True, blank=True, help_text="What was left of the limit or cap that ends it first."
    )
    left_of = models.CharField(
        max_length=40, blank=True, default="", help_text="The reason that names that limit or cap."
    )
    offered_micro = models.BigIntegerField(null=True, blank=True)
    smaller_micro = models.BigIntegerField(null=True, blank=True)
    state = models.CharField(max_length=10, choices=State.choices)
    answered_by = models.CharField(
        max_length=32, blank=True, default="", help_text="The Slack user who answered."
    )
    made_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, blank=True)
    answered_at = models.DateTimeField(null=True, blank=True)
    heard_at = models.DateTimeField(
        null=True, blank=True, help_text="When the run's workflow took up the answer."
    )

    class Meta:
        ordering = ["-made_at"]
        indexes = [
            models.Index(
                fields=["made_at"], condition=models.Q(state="asked"), name="run_quote_open"
            ),
            models.Index(
                fields=["made_at"],
                condition=models.Q(
                    state__in=["accepted", "smaller", "cancelled", "dropped"], heard_at=None
                ),
                name="run_quote_unheard",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.run_id} {self.state}"


class CreditApprover(models.Model):
    """A person in Slack who may approve requests for credits, as a user of the admin.

    Administrators make these rows by hand. An e-mail address in a Slack profile is no proof of who
    somebody is, because the workspace's owners can change it.
    """

    workspace = models.ForeignKey(
        SlackWorkspace, on_delete=models.CASCADE, related_name="credit_approvers"
    )
    slack_user_id = models.CharField(
        "Slack user", max_length=32, help_text="The member ID in the person's Slack profile: U…"
    )
    user = models.ForeignKey(
        User,
        on_delete=models.CASCADE,
        related_name="+",
        help_text="Whose rights decide. The user must be active and may add top-ups.",
    )

    class Meta:
        ordering = ["workspace", "slack_user_id"]
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "slack_user_id"], name="credit_approver_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.slack_user_id} as {self.user}"


class HomeTab(models.Model):
    """The app's Home tab of a person who opened it. `workflows.home` publishes it when it is due.

    Each opening and click increments `revision`. If it changed while the tab was being published,
    the tab is published again.
    """

    workspace = models.ForeignKey(SlackWorkspace, on_delete=models.CASCADE, related_name="+")
    user_id = models.CharField(max_length=32)
    revision = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="When to publish it. While publishing, when the publisher counts as dead.",
    )
    attempts = models.PositiveIntegerField(default=0)
    published_at = models.DateTimeField(null=True, blank=True)
    access_until = models.DateTimeField(
        null=True,
        blank=True,
        help_text="Until then, Slack's last answer about their access is reused.",
    )
    said = models.CharField(
        max_length=1000,
        blank=True,
        default="",
        help_text="The answer to a click, shown until the tab is opened again.",
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "user_id"], name="home_tab_unique")
        ]
        indexes = [
            models.Index(
                fields=["due_at"],
                condition=models.Q(due_at__isnull=False),
                name="home_tab_due",
            )
        ]

    def __str__(self) -> str:
        return f"{self.workspace_id} {self.user_id}"


class AgentSession(models.Model):
    """The state of a thread's work that Slack shows, as it last accepted it.

    `workflows.agent_sessions` compares it with the rows of tasks and runs.
    """

    workspace = models.ForeignKey(SlackWorkspace, on_delete=models.CASCADE, related_name="+")
    channel_id = models.CharField(max_length=32)
    thread_ts = models.CharField(max_length=32)
    status = models.CharField(
        max_length=20, blank=True, default="", help_text="Empty: Slack shows none yet."
    )
    title = models.CharField(max_length=200, blank=True, default="")
    refused = models.BooleanField(default=False, help_text="Whether Slack refused this thread.")
    due_at = models.DateTimeField(
        null=True, blank=True, help_text="Until then no other process calls Slack for it."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "channel_id", "thread_ts"], name="agent_session_unique_thread"
            )
        ]
        indexes = [
            models.Index(
                fields=["workspace"],
                condition=~models.Q(status__in=["", "closed"]),
                name="agent_session_open",
            )
        ]

    def __str__(self) -> str:
        return f"{self.channel_id}/{self.thread_ts} {self.status}"


class AgentAvailability(models.Model):
    """Whether a workspace has agent sessions, and when Slack was last asked."""

    workspace = models.OneToOneField(SlackWorkspace, on_delete=models.CASCADE, related_name="+")
    works = models.BooleanField(default=False)
    tried_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=200, blank=True, default="")

    def __str__(self) -> str:
        return f"{self.workspace_id}: {self.works}"
