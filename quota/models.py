"""The published state, from which Redis is rebuilt, and the blocks set by hand in Redis."""

from django.db import models

from projects.models import Organization, Project
from quota.account_state import AccountState, from_json
from quota.resources import RESOURCES

RESOURCE_CHOICES = [(resource.name, resource.title) for resource in RESOURCES.values()]


class QuotaState(models.Model):
    """The published state of an account. Only `quota.published.publication` writes it."""

    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, related_name="quota_states"
    )
    resource = models.CharField(max_length=40, choices=RESOURCE_CHOICES)
    version = models.BigIntegerField()
    state = models.CharField(max_length=10)
    valid_until = models.DateTimeField(
        null=True, db_index=True, help_text="From then on billing has to decide again."
    )
    document = models.TextField(help_text="The whole state, as it is kept in Redis.")
    changed_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "resource"], name="quota_state_unique")
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}:{self.resource} {self.state}"

    @property
    def published(self) -> AccountState:
        """The state as billing published it."""
        return from_json(self.document)


class SetMember(models.Model):
    """A project's scores in the sorted sets of one resource.

    A *published* row is written to Redis. If it has no scores it is a tombstone, which keeps an
    older publication from coming back. A *set by hand* row mirrors a block that somebody wrote to
    Redis; it is deleted once the block is gone from there.
    """

    class Origin(models.TextChoices):
        PUBLISHED = "published"
        BY_HAND = "by_hand", "set by hand"

    resource = models.CharField(max_length=40, choices=RESOURCE_CHOICES)
    token = models.CharField("project API token", max_length=200)
    origin = models.CharField(max_length=10, choices=Origin.choices)
    organization = models.ForeignKey(
        Organization, null=True, on_delete=models.CASCADE, related_name="+"
    )
    project = models.ForeignKey(Project, null=True, on_delete=models.SET_NULL, related_name="+")
    version = models.BigIntegerField(default=1, help_text="Fences what is written to Redis.")
    limited_until = models.BigIntegerField(null=True, help_text="Score, in unix seconds.")
    suspended_until = models.BigIntegerField(null=True, help_text="Score, in unix seconds.")
    reason = models.CharField(max_length=40, blank=True)
    since = models.DateTimeField(null=True, help_text="When the present block began.")
    changed_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = "limited project"
        constraints = [
            models.UniqueConstraint(
                fields=["resource", "token", "origin"], name="set_member_unique"
            )
        ]
        indexes = [
            models.Index(fields=["organization", "resource"], name="set_member_account"),
            models.Index(fields=["limited_until"], name="set_member_limited_until"),
            models.Index(fields=["suspended_until"], name="set_member_suspended_until"),
        ]

    def __str__(self) -> str:
        return f"{self.resource} of {self.project or self.token}"


class CapState(models.Model):
    """The cap of one project or user, and what they have used of an account in this period.

    Billing keeps a row for each project and user that a cap may apply to, in the transactions that
    book usage or change caps. `booked` maps a gateway group to what it ever booked for the subject.
    """

    class Scope(models.TextChoices):
        PROJECT = "project"
        USER = "user"

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    resource = models.CharField(max_length=40, choices=RESOURCE_CHOICES)
    scope = models.CharField(max_length=10, choices=Scope.choices)
    subject = models.CharField(max_length=200, help_text="The project's number or the user's id.")
    cap_micro = models.BigIntegerField(null=True, help_text="Per period; empty: not capped.")
    usage_micro = models.BigIntegerField(default=0)
    booked = models.JSONField(default=dict)
    exhausted = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "resource", "scope", "subject"], name="cap_state_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}:{self.resource} {self.scope} {self.subject}"
