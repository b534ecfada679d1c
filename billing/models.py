"""What was used and what can be used: accounts, ledger, totals, limits, grants and audit trail.

Amounts are integers of micro-credits. The ledger, the limits and the grants are the truth. The
running totals and everything in `quota` are projections, which `rebuild_quota` rebuilds from them.
"""

import os
import time
import uuid

from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce

from billing.append_only import AppendOnlyModel
from projects.models import Organization, Project
from quota.moments import moment
from quota.resources import RESOURCES

RESOURCE_CHOICES = [(resource.name, resource.title) for resource in RESOURCES.values()]


def new_ledger_epoch() -> uuid.UUID:
    """Return a UUID whose text sorts after all earlier ones (version 7 of RFC 9562)."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = milliseconds << 80 | 0x7 << 76 | (random >> 68 & 0xFFF) << 64
    return uuid.UUID(int=value | 0b10 << 62 | random & (1 << 62) - 1)


class Account(models.Model):
    """An organization's credits of one bucket. Its row lock serializes all changes to them.

    `version` increases by one with every change of the published state. Versions can be compared
    only within one `ledger_epoch`: a restored backup begins a new epoch.
    """

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="accounts"
    )
    resource = models.CharField(max_length=40, choices=RESOURCE_CHOICES)
    version = models.BigIntegerField(default=0)
    ledger_epoch = models.UUIDField(default=new_ledger_epoch, editable=False)
    booked = models.BooleanField(
        default=False, editable=False, help_text="Whether usage was ever booked."
    )
    state = models.CharField(max_length=10, blank=True, default="", editable=False)
    reason = models.CharField(max_length=40, blank=True, default="", editable=False)
    exhausted_since = models.DateTimeField(
        null=True, editable=False, help_text="When a decision first found nothing left."
    )
    insufficient_micro = models.BigIntegerField(
        default=0,
        db_default=0,
        editable=False,
        help_text="What was left when it proved too little to pay for a call.",
    )
    insufficient_at = models.DateTimeField(
        null=True,
        editable=False,
        help_text="When that was. It applies until the end of the period.",
    )
    grace_began_at = models.DateTimeField(
        null=True, editable=False, help_text="When the period's one grace began."
    )
    period_start = models.DateTimeField(
        null=True, editable=False, help_text="Start of the current period; earlier ones are closed."
    )
    caps_version = models.BigIntegerField(
        default=0,
        db_default=0,
        editable=False,
        help_text="Version of the published caps. 0: there never were any.",
    )
    announced_percent = models.PositiveSmallIntegerField(
        default=0, editable=False, help_text="The highest threshold announced in this round."
    )
    announced_of_micro = models.BigIntegerField(
        null=True, editable=False, help_text="The credits of the period when that was."
    )
    warning_round = models.PositiveIntegerField(
        default=0,
        db_default=0,
        editable=False,
        help_text="How often more credits brought the period's usage below an announced threshold.",
    )
    decide_again_at = models.DateTimeField(null=True, editable=False, db_index=True)
    published_digest = models.CharField(max_length=64, blank=True, default="", editable=False)
    verified_at = models.DateTimeField(
        null=True, editable=False, help_text="When it was last compared with its whole ledger."
    )

    class Meta:
        ordering = ["organization__name", "resource"]
        constraints = [
            models.UniqueConstraint(fields=["organization", "resource"], name="account_unique")
        ]

    def __str__(self) -> str:
        return f"{self.organization} / {RESOURCES[self.resource].title}"

    @property
    def key(self) -> str:
        """The account's name in the gateway."""
        return f"{self.organization_id}:{self.resource}"


def default_thresholds() -> list[int]:
    """Return the percents at which to warn by default."""
    return [80, 100]


class Limit(AppendOnlyModel):
    """What an account can use per period, from `set_at` until the next row replaces it.

    The limit in force at the end of a period applies to the whole period, even if it was changed
    within the period. An account without a row is unlimited.
    """

    class Mode(models.TextChoices):
        HARD = "hard", "hard: refuse when it is reached"
        SOFT = "soft", "soft: warn, never refuse"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="limits")
    limit_micro = models.BigIntegerField(null=True, help_text="Per period; empty: unlimited.")
    mode = models.CharField(max_length=4, choices=Mode.choices, default=Mode.HARD)
    grace_days = models.PositiveSmallIntegerField(
        default=0,
        help_text="Days between reaching the limit and the refusal, where there is grace.",
    )
    anchor_day = models.PositiveSmallIntegerField(default=1, help_text="First day of the period.")
    time_zone = models.CharField(max_length=64, default="UTC")
    thresholds = models.JSONField(
        default=default_thresholds,
        help_text="Percents of the period's credits at which to warn; the first begins `warning`.",
    )
    set_at = models.DateTimeField()
    actor = models.CharField(max_length=200, blank=True, default="")
    reason = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        ordering = ["-set_at"]
        constraints = [
            models.UniqueConstraint(fields=["account", "set_at"], name="limit_unique_instant"),
            models.CheckConstraint(
                condition=Q(limit_micro__isnull=True) | Q(limit_micro__gte=0),
                name="limit_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(anchor_day__gte=1) & Q(anchor_day__lte=31), name="limit_anchor_day"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account} from {moment(self.set_at)}"


class Cap(AppendOnlyModel):
    """What one project, user or run can use of an account, from `set_at` until the next row.

    A cap refuses regardless of what the organization has left, and of whether its limit is hard,
    soft or unset. Caps of projects and users apply per period, caps of runs to a whole run.
    """

    class Scope(models.TextChoices):
        PROJECT = "project"
        USER = "user"
        RUN = "run"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="caps")
    scope = models.CharField(max_length=10, choices=Scope.choices)
    subject = models.CharField(
        max_length=200,
        blank=True,
        default="",
        help_text="A project's number, or a user such as slack:T1:U1. Empty: each one without a "
        "cap of its own.",
    )
    cap_micro = models.BigIntegerField(null=True, help_text="Empty: not capped.")
    set_at = models.DateTimeField()
    actor = models.CharField(max_length=200, blank=True, default="")
    reason = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        ordering = ["-set_at", "-pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(cap_micro__isnull=True) | Q(cap_micro__gte=0), name="cap_not_negative"
            ),
            models.CheckConstraint(
                condition=~Q(scope="run") | Q(subject=""), name="cap_of_each_run"
            ),
        ]
        indexes = [models.Index(fields=["account", "scope", "subject"], name="cap_by_subject")]

    def __str__(self) -> str:
        return f"{self.account}: {self.scope} {self.subject or 'each'}"


class CreditGrant(models.Model):
    """A top-up: credits in addition to the periodic limit. It can be voided, but never changed.

    Grants are spent once the period's limit is used up: by priority (lower first), then by expiry,
    then by order of creation. A grant covers usage from `starts_at` until it expires or is voided.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="grants")
    amount_micro = models.BigIntegerField()
    starts_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    priority = models.SmallIntegerField(default=0, help_text="Lower is spent first.")
    idempotency_key = models.CharField(
        max_length=100,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="Repeating the request with this key returns this top-up instead of another one.",
    )
    actor = models.CharField(max_length=200, blank=True, default="")
    reason = models.CharField(max_length=500, blank=True, default="")
    created_at = models.DateTimeField()
    voided_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "top-up"
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.CheckConstraint(condition=Q(amount_micro__gt=0), name="grant_positive"),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("starts_at")),
                name="grant_expires_after_start",
            ),
            models.UniqueConstraint(
                fields=["account", "idempotency_key"],
                condition=~Q(idempotency_key=""),
                name="grant_once_for_a_key",
            ),
        ]

    def __str__(self) -> str:
        return f"grant {self.pk} of {self.account}"


class UsageEvent(AppendOnlyModel):
    """The ledger: one row per `$ai_generation` event, keyed by the event's uuid forever.

    An event of a product without a bucket, or one marked as not billable, has zero credits and no
    account. Only a discarded event can lack a project: its row only gives its gateway group back
    what the group had debited.
    """

    class Kind(models.TextChoices):
        USAGE = "usage"
        LATE = "late", "late: adjusts a period that was closed when it arrived"
        CORRECTION = "correction", "correction of the event it is linked to"
        REFUND = "refund", "refund of the event it is linked to"
        DISCARDED = "discarded", "discarded: nobody pays, the group gets its debit back"

    uuid = models.UUIDField(primary_key=True)
    account = models.ForeignKey(
        Account, null=True, on_delete=models.PROTECT, related_name="events", db_index=False
    )
    project = models.ForeignKey(
        Project, null=True, on_delete=models.PROTECT, related_name="usage_events", db_index=False
    )
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.USAGE)
    adjusts = models.UUIDField(null=True, help_text="The event that this row corrects or refunds.")
    occurred_at = models.DateTimeField(help_text="When it was used: decides the period.")
    booked_at = models.DateTimeField(db_index=True, help_text="When it was written here.")
    credits_micro = models.BigIntegerField()
    cost_usd = models.CharField(max_length=64, help_text="Exact provider cost in dollars.")
    price_version = models.CharField(max_length=100, blank=True, default="")
    billable = models.BooleanField()
    product = models.CharField(max_length=40)
    model = models.CharField(max_length=200, blank=True, default="")
    provider = models.CharField(max_length=100, blank=True, default="")
    distinct_id = models.CharField(max_length=200, blank=True, default="")
    task_run_id = models.UUIDField(null=True)
    trace_id = models.CharField(max_length=200, blank=True, default="")
    input_tokens = models.BigIntegerField(null=True)
    output_tokens = models.BigIntegerField(null=True)
    cache_read_input_tokens = models.BigIntegerField(null=True)
    cache_creation_input_tokens = models.BigIntegerField(null=True)
    cache_creation_5m_input_tokens = models.BigIntegerField(null=True)
    cache_creation_1h_input_tokens = models.BigIntegerField(null=True)
    web_search_count = models.BigIntegerField(null=True)
    service_tier = models.CharField(max_length=40, blank=True, default="")
    latency_ms = models.BigIntegerField(null=True)
    http_status = models.SmallIntegerField(null=True)
    is_stream = models.BooleanField(default=False)
    is_error = models.BooleanField(default=False)
    is_estimated = models.BooleanField(default=False)
    group = models.CharField(
        max_length=100, blank=True, default="", help_text="The gateway Redis that held it."
    )
    debited_micro = models.BigIntegerField(default=0, help_text="What the group says it spent.")
    payload_sha256 = models.CharField(max_length=64)

    class Meta:
        ordering = ["-booked_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(project__isnull=False) | Q(kind="discarded", credits_micro=0),
                name="usage_event_has_project",
            )
        ]
        indexes = [
            models.Index(fields=["account", "occurred_at"], name="usage_event_by_account"),
            models.Index(
                fields=["task_run_id"],
                condition=Q(task_run_id__isnull=False),
                name="usage_event_by_run",
            ),
            models.Index(
                fields=["trace_id"],
                condition=Q(task_run_id__isnull=True),
                name="usage_event_by_trace",
            ),
            models.Index(
                fields=["adjusts"], condition=Q(adjusts__isnull=False), name="usage_event_linked"
            ),
        ]

    def __str__(self) -> str:
        return str(self.uuid)


class RunRefund(AppendOnlyModel):
    """A task run whose whole cost is given back, including what is booked for it later.

    The amounts are in the ledger's refunds of the run's events.
    """

    task_run_id = models.UUIDField("run", primary_key=True)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    reason = models.CharField(max_length=200, help_text="The failure that ended the run.")
    actor = models.CharField(max_length=200, blank=True, default="")
    made_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-made_at"]

    def __str__(self) -> str:
        return f"refund of run {self.task_run_id}"


class AttemptRefund(AppendOnlyModel):
    """An attempt at a run whose cost is given back, because its work was lost and done again.

    It covers the calls of the run that began from `since` (inclusive) to `until` (exclusive),
    whenever they are booked.
    """

    task_run_id = models.UUIDField("run")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    since = models.DateTimeField()
    until = models.DateTimeField()
    reason = models.CharField(max_length=200, help_text="Why its work was lost.")
    actor = models.CharField(max_length=200, blank=True, default="")
    made_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-made_at"]
        constraints = [
            models.UniqueConstraint(fields=["task_run_id", "since"], name="attempt_refund_unique")
        ]

    def __str__(self) -> str:
        return f"refund of an attempt at run {self.task_run_id}"


class UsageTotal(models.Model):
    """The running total of one stretch of time, within one period and with the same live grants.

    A projection of the ledger: `usage_micro` is the sum of the account's events that occurred from
    `starts_at` (inclusive) to `ends_at` (exclusive).
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="totals")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    usage_micro = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["account", "starts_at"]
        constraints = [
            models.UniqueConstraint(fields=["account", "starts_at"], name="usage_total_unique")
        ]

    def __str__(self) -> str:
        return f"{self.account} from {moment(self.starts_at)}"


class DailyUsage(models.Model):
    """The usage report: what one user or run used on one UTC day with one product and model.

    A projection of the ledger. The report of a day is made again whenever events of that day were
    booked.
    """

    day = models.DateField()
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    resource = models.CharField(max_length=40, blank=True, help_text="Empty: nobody pays.")
    product = models.CharField(max_length=40)
    model = models.CharField(max_length=200, blank=True)
    distinct_id = models.CharField("user", max_length=200, blank=True)
    task_run_id = models.UUIDField(null=True)
    events = models.BigIntegerField()
    credits_micro = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    cache_read_input_tokens = models.BigIntegerField()
    cache_creation_input_tokens = models.BigIntegerField()

    class Meta:
        ordering = ["-day"]
        verbose_name_plural = "daily usage"
        constraints = [
            models.UniqueConstraint(
                "day",
                "project",
                "resource",
                "product",
                "model",
                "distinct_id",
                Coalesce("task_run_id", Value(uuid.UUID(int=0), models.UUIDField())),
                name="daily_usage_unique",
            )
        ]
        indexes = [models.Index(fields=["organization", "day"], name="daily_usage_by_organization")]

    def __str__(self) -> str:
        return f"{self.project} on {self.day}"


class ReportedUsage(models.Model):
    """The instant up to which the daily usage reports are complete: one row, or none yet."""

    booked_before = models.DateTimeField(
        help_text="Events booked since then can be missing from the report of their day."
    )

    class Meta:
        verbose_name_plural = "reported usage"

    def __str__(self) -> str:
        return f"reported: booked before {self.booked_before:%Y-%m-%d %H:%M}"


class UsageSum(models.Model):
    """What all accounts used on one day, or what one organization, user or model used in one month.

    A projection of the ledger up to `SummedUsage`. Days and months are in UTC.
    """

    class Kind(models.TextChoices):
        DAY = "day"
        ORGANIZATION = "organization"
        USER = "user"
        MODEL = "model"

    kind = models.CharField(max_length=12, choices=Kind.choices)
    since = models.DateField(help_text="The day, or the first day of the month.")
    key = models.CharField(
        max_length=200, blank=True, help_text="A bucket, an organization's id, a user or a model."
    )
    events = models.BigIntegerField(default=0)
    credits_micro = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "since", "key"], name="usage_sum_unique")
        ]
        indexes = [
            models.Index(fields=["kind", "since", "-credits_micro"], name="usage_sum_by_amount")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.key} since {self.since}"


class SummedUsage(models.Model):
    """The instant up to which `UsageSum` has summed the ledger: one row, or none yet."""

    booked_before = models.DateTimeField()

    class Meta:
        verbose_name_plural = "summed usage"

    def __str__(self) -> str:
        return f"summed: booked before {self.booked_before:%Y-%m-%d %H:%M:%S}"


class AccountGroup(models.Model):
    """What was ever booked on an account for one gateway group: a projection of the ledger."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="groups")
    group = models.CharField(max_length=100)
    booked_micro = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["account", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["account", "group"], name="account_group_unique")
        ]

    def __str__(self) -> str:
        return f"{self.account} by {self.group}"


class LedgerCheckpoint(models.Model):
    """The instant up to which `CheckpointSum` has added up the ledger: one row, or none yet."""

    booked_before = models.DateTimeField()

    def __str__(self) -> str:
        return f"added up: booked before {self.booked_before:%Y-%m-%d %H:%M:%S}"


class CheckpointSum(models.Model):
    """What was booked on an account before the checkpoint: a projection of the ledger."""

    account = models.OneToOneField(
        Account, primary_key=True, on_delete=models.PROTECT, related_name="+"
    )
    credits_micro = models.BigIntegerField(default=0)
    debited_micro = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.account_id}: {self.credits_micro}"


class QuarantinedEvent(models.Model):
    """An event that could not be booked, and the reason. Somebody books or discards it later."""

    class State(models.TextChoices):
        OPEN = "open", "open: to be decided"
        BOOKED = "booked"
        DISCARDED = "discarded"

    event_uuid = models.CharField(max_length=64, blank=True, default="", db_index=True)
    reason = models.CharField(max_length=40, db_index=True)
    detail = models.CharField(max_length=300, blank=True, default="")
    awaits = models.UUIDField(
        null=True, help_text="The event that it corrects, while that has not arrived."
    )
    payload = models.TextField(help_text="The event as it arrived, as JSON in ASCII.")
    payload_sha256 = models.CharField(max_length=64, unique=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    received_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True)
    resolved_by = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        ordering = ["-received_at"]
        indexes = [
            models.Index(
                fields=["received_at"], condition=Q(state="open"), name="quarantine_still_open"
            ),
            models.Index(
                fields=["awaits"],
                condition=Q(state="open", awaits__isnull=False),
                name="quarantine_awaits_an_event",
            ),
        ]

    def __str__(self) -> str:
        return self.event_uuid or f"event without uuid ({self.reason})"


class ThresholdNotice(AppendOnlyModel):
    """An account reached a threshold, or has credits again.

    Each is announced once per round. A round ends with the period, or when more credits bring the
    usage below an announced threshold.
    """

    RESOLVED = 0

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="notices")
    period_start = models.DateTimeField()
    round = models.PositiveIntegerField(
        default=0, db_default=0, help_text="How many rounds of the period were over before."
    )
    percent = models.PositiveSmallIntegerField(help_text="0: something is left again.")
    usage_micro = models.BigIntegerField()
    noticed_at = models.DateTimeField()

    class Meta:
        ordering = ["-noticed_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["account", "period_start", "round", "percent"],
                name="threshold_notice_once",
            )
        ]

    def __str__(self) -> str:
        reached = f"{self.percent} %" if self.percent else "resolved"
        return f"{self.account}: {reached}"


class DecisionRecord(AppendOnlyModel):
    """One decision that changed an account's or a cap's state, with all its inputs."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="decisions")
    version = models.BigIntegerField()
    decided_at = models.DateTimeField()
    scope = models.CharField(
        max_length=10,
        choices=Cap.Scope.choices,
        blank=True,
        default="",
        db_default="",
        help_text="The scope of the cap that it is about. Empty: the whole account.",
    )
    subject = models.CharField(max_length=200, blank=True, default="", db_default="")
    previous_state = models.CharField(max_length=10, blank=True, default="")
    state = models.CharField(max_length=10)
    reason = models.CharField(max_length=40, blank=True, default="")
    inputs = models.JSONField()
    outcome = models.JSONField()

    class Meta:
        verbose_name = "decision"
        ordering = ["-decided_at", "-pk"]
        indexes = [models.Index(fields=["account", "-decided_at"], name="decision_by_account")]

    def __str__(self) -> str:
        return f"{self.account}: {self.state}"


class AuditEntry(AppendOnlyModel):
    """Who changed a limit, grant, event, organization, workspace or key, when and why."""

    class Action(models.TextChoices):
        LIMIT_SET = "limit_set", "limit set"
        CAP_SET = "cap_set", "cap set"
        CREDITS_GRANTED = "credits_granted", "topped up"
        GRANT_VOIDED = "grant_voided", "top-up voided"
        EVENT_BOOKED = "event_booked", "quarantined event booked"
        EVENT_DISCARDED = "event_discarded", "quarantined event discarded"
        EVENT_REFUNDED = "event_refunded", "event refunded"
        RUN_REFUNDED = "run_refunded", "task run refunded"
        ATTEMPT_REFUNDED = "attempt_refunded", "attempt at a task run refunded"
        ORGANIZATION_ACTIVATED = "organization_activated", "organization activated"
        ORGANIZATION_DEACTIVATED = "organization_deactivated", "organization deactivated"
        TOKEN_ROTATED = "token_rotated", "project API token rotated"
        KEY_CREATED = "key_created", "personal API key created"
        KEY_REVOKED = "key_revoked", "personal API key revoked"
        TOKEN_REVOKED = "token_revoked", "OAuth access token revoked"
        WORKSPACE_ACTIVATED = "workspace_activated", "Slack workspace activated"
        WORKSPACE_DEACTIVATED = "workspace_deactivated", "Slack workspace deactivated"

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    action = models.CharField(max_length=30, choices=Action.choices)
    organization = models.ForeignKey(
        Organization, null=True, on_delete=models.PROTECT, related_name="audit_entries"
    )
    actor = models.CharField(max_length=200, blank=True, default="")
    reason = models.CharField(max_length=500, blank=True, default="")
    details = models.JSONField(default=dict)

    class Meta:
        ordering = ["-at", "-pk"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.action} by {self.actor or 'nobody named'}"
