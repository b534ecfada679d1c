"""What is kept of every mention: the durable records that make each step happen once."""

import uuid

from django.db import models
from django.utils import timezone

from coding_tasks.agents import trace_of
from projects.models import SlackWorkspace
from workflows.mention_types import workflow_id

ERASED = "[erased]"
"""What takes the place of words that were erased."""


class Mention(models.Model):
    """One post that asked something of the bot, recorded before Slack is answered.

    Most of them name the bot. A reply of the author that takes up an earlier request also counts
    as a mention, and so does an order to stop.

    The row is the identity: a redelivery, the `message` twin of an `app_mention` and concurrent
    copies all meet the unique constraint. A row in state `received` is a promise that the sweep
    keeps when the request that wrote it died.
    """

    class State(models.TextChoices):
        RECEIVED = "received", "received: the workflow is still to be started"
        STARTED = "started", "started: the workflow has it"
        REFUSED = "refused", "refused at the door"
        FORWARDED = "forwarded", "forwarded to the running task of the thread"
        ANSWERED = "answered", "answered in the thread"
        FAILED = "failed", "failed, and said so in the thread"
        ASKED = "asked", "asked what to do: it had no text"
        STOPPED = "stopped", "stopped by its author, or the word that stopped another"

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
        help_text="The author's earlier request in the thread, which was not answered: it is asked "
        "for again. Each is taken up at most once.",
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
        help_text="Until when whoever decides about it has it to themselves.",
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
    def trace_id(self) -> str:
        """The trace of the calls made for it, before there is a task and by the task."""
        return trace_of(workflow_id(self.team_id, self.channel_id, self.ts))


class Notice(models.Model):
    """One message that the bot owes a thread, or a channel, at most once: a denial or another.

    Claimed by its unique `key` (for a denial, the mention), written before anything is sent, sent
    by the first that gets to it: a Celery task, the workflow's activity or the sweep.
    """

    class Kind(models.TextChoices):
        DENIAL = "denial"
        NO_ACCESS = "no_access"
        NOT_YOUR_TASK = "not_your_task"
        PICKER = "picker"
        PICKER_REFUSAL = "picker_refusal"
        ANSWER = "answer"
        FAILURE = "failure"
        CREDITS = "credits", "credits: they run low, or there are some again"
        QUESTION = "question", "question: what is there to do?"
        STOP = "stop", "stop: what was stopped, or why nothing was"
        HINT = "hint", "hint: how to go on in a thread that has ended"

    class State(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending", "sending: claimed, outcome unknown until sent"
        SENT = "sent"
        GIVEN_UP = "given_up"

    class Destination(models.TextChoices):
        THREAD = "thread"
        EPHEMERAL = "ephemeral", "ephemeral: shown to the user only, the thread refused it"
        PARTS = "parts", "parts: several messages in the thread"
        FILE = "file", "file: a file in the thread"
        DM = "dm", "direct message: the thread refused it"
        DM_PARTS = "dm_parts", "direct messages: several, the thread refused it"
        DM_FILE = "dm_file", "file in a direct message: the thread refused it"
        PAGE = "page", "page: kept here, Slack refused it everywhere"

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
        max_length=32, blank=True, help_text="Who is told, if only they can be."
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
        default=0, db_default=0, help_text="How many messages of this destination are sent."
    )
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(
        default=timezone.now,
        help_text="When to send, or, while sending, when the sender counts as dead.",
    )
    message_ts = models.CharField(max_length=32, blank=True, default="")
    error = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(
                fields=["next_attempt_at"],
                condition=models.Q(state__in=["pending", "sending"]),
                name="notice_still_to_send",
            ),
            models.Index(fields=["workspace", "channel_id", "thread_ts"], name="notice_thread"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class FollowUp(models.Model):
    """One reply by a task's owner in the task's thread, kept until its workflow has handled it.

    Write it in the transaction that holds the lock of the task it is for
    (`coding_tasks.threads.lock_active_task`): a task does not finish while a message waits for it.
    A reply that came before the task is written under the lock of the open mention that will make
    the task: the mention does not close without settling it (`workflows.closing`).
    """

    class State(models.TextChoices):
        RECEIVED = "received", "received: the workflow is still to be signalled"
        SIGNALLED = "signalled", "signalled: the workflow knows of it"
        HANDLED = "handled", "handled: a run of the task answers it"
        REFUSED = "refused", "refused for want of credits"
        DROPPED = "dropped", "dropped: there was no task for it, or no longer"

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

    Slack may deliver a reply before the mention that it follows. So a reply is recorded before its
    mention is looked for, and a mention before its replies are: one of the two always finds the
    other (`workflows.replies`). Most replies are not for the bot, so the rows are deleted after
    minutes.
    """

    workspace = models.ForeignKey(SlackWorkspace, on_delete=models.CASCADE, related_name="+")
    channel_id = models.CharField(max_length=32)
    ts = models.CharField(max_length=32)
    thread_ts = models.CharField(max_length=32)
    user_id = models.CharField(max_length=32)
    text = models.TextField()
    decided_at = models.DateTimeField(
        null=True, blank=True, help_text="When it was found to be for nobody, so far."
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
