"""What tasks changed: the branch of each task, and the commit of each run."""

import zlib
from typing import Self

from django.db import models
from django.utils import timezone

from coding_tasks.repositories.changes import Change


class TaskBranch(models.Model):
    """The branch of a task, and the pull request from it."""

    task = models.OneToOneField(
        "coding_tasks.CodingTask", on_delete=models.CASCADE, related_name="branch"
    )
    name = models.CharField(max_length=100)
    base_branch = models.CharField(max_length=255, blank=True, default="")
    pushed_commit = models.CharField(max_length=64, blank=True, default="")
    pull_request = models.URLField(max_length=500, blank=True, default="")

    class Meta:
        verbose_name_plural = "task branches"

    def __str__(self) -> str:
        return self.name


class RunChange(models.Model):
    """The commit that a run made, kept so that it can be shown, and made again on any machine."""

    run = models.OneToOneField(
        "coding_tasks.TaskRun", on_delete=models.CASCADE, related_name="change"
    )
    parent = models.CharField(max_length=64, blank=True)
    commit = models.CharField(max_length=64)
    branch = models.CharField(max_length=100)
    files = models.PositiveIntegerField()
    added = models.PositiveIntegerField(help_text="Lines.")
    removed = models.PositiveIntegerField(help_text="Lines.")
    questions = models.JSONField(
        default=list, help_text="Why somebody has to agree before it is published."
    )
    agreed_at = models.DateTimeField(
        null=True, blank=True, help_text="When the requester agreed that it is published."
    )
    settled_at = models.DateTimeField(
        null=True, blank=True, help_text="When the thread was told what came of that."
    )
    note = models.CharField(
        max_length=500,
        blank=True,
        default="",
        help_text="Why it is not pushed, or has no pull request.",
    )
    packed_patch = models.BinaryField()
    description = models.BinaryField()
    push_began_at = models.DateTimeField(null=True, blank=True)
    pushed_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.commit[:12]

    @classmethod
    def of(cls, change: Change) -> Self:
        """Return an unsaved row for a change."""
        return cls(
            parent=change.parent,
            commit=change.commit,
            branch=change.branch,
            files=len(change.files),
            added=sum(file.added for file in change.files),
            removed=sum(file.removed for file in change.files),
            packed_patch=zlib.compress(change.patch),
            description=change.description,
        )

    @property
    def patch(self) -> bytes:
        """The change as a patch that `git apply` takes."""
        return zlib.decompress(self.packed_patch)

    def restorable(self) -> Change:
        """Return the change in the form that `restore_change` takes."""
        return Change(
            commit=self.commit,
            parent=self.parent,
            branch=self.branch,
            files=(),
            patch=self.patch,
            added_text=b"",
            description=bytes(self.description),
        )


class ChangeUndo(models.Model):
    """Somebody wants the change of a run undone. `coding_tasks.publishing.undoing` does it.

    The row says what is to be done before anything is done, so a sweep can finish it. It belongs to
    the run, because it stays when the change is erased.
    """

    class State(models.TextChoices):
        WANTED = "wanted", "wanted: to be done, or being done"
        DONE = "done", "done: the change is undone"
        REFUSED = "refused", "refused: nothing is changed"

    run = models.OneToOneField(
        "coding_tasks.TaskRun", on_delete=models.CASCADE, related_name="undo"
    )
    asked_by = models.CharField(max_length=32, help_text="The Slack user who wanted it.")
    asked_at = models.DateTimeField(default=timezone.now)
    state = models.CharField(max_length=10, choices=State.choices, default=State.WANTED)
    revert_commit = models.CharField(
        max_length=64,
        blank=True,
        default="",
        help_text="The commit that reverts the change. Empty: there is none.",
    )
    push_began_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(
        max_length=500, blank=True, default="", help_text="What came of it, in words."
    )
    ended_at = models.DateTimeField(null=True, blank=True)
    told_at = models.DateTimeField(
        null=True, blank=True, help_text="When the message about it was written."
    )

    class Meta:
        ordering = ["-asked_at"]
        verbose_name = "undone change"
        indexes = [
            models.Index(
                fields=["asked_at"], condition=models.Q(told_at=None), name="change_undo_open"
            )
        ]

    def __str__(self) -> str:
        return f"{self.run_id} {self.state}"
