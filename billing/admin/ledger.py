"""Admin pages for the ledger and the daily usage report. Read-only, except for refunds."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from billing.admin.read_only import ReadOnly, actor, credits_column, thousands_column
from billing.admin.words import BUCKETS, BucketFilter, ProductFilter, words_column
from billing.credits import display
from billing.ingestion.refunds import NotRefundable, refund
from billing.models import AttemptRefund, DailyUsage, RunRefund, UsageEvent
from billing.products import TITLES
from billing.reports.usage import given_back_to_task_runs
from projects.admin_parts.completed_list import CompletedList
from projects.admin_parts.named_search import NamedSearch
from projects.admin_parts.second_look import SecondLook
from quota.moments import moment


@admin.register(UsageEvent)
class UsageEventAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[UsageEvent]):
    """All booked events."""

    list_display = [
        "booked_at",
        "occurred_at",
        "organization",
        "project",
        "product_title",
        "model",
        "credits",
        "cost_usd",
        "kind",
        "is_error",
        "is_estimated",
        "distinct_id",
    ]
    list_filter = [
        ("product", ProductFilter),
        "kind",
        "billable",
        "is_error",
        "is_estimated",
        "account__resource",
        "booked_at",
    ]
    list_select_related = ["project__organization"]
    search_fields = ["model", "project__organization__name"]
    search_ids = ["uuid", "adjusts", "task_run_id", "trace_id", "distinct_id__icontains"]
    search_help_text = "An event's, run's or trace's id, a user, a model or an organization."
    show_full_result_count = False
    actions = ["refund"]
    credits = credits_column("credits_micro", "credits")
    product_title = words_column("product", "product", TITLES)

    @admin.display(description="organization")
    def organization(self, event: UsageEvent) -> Any:
        """Return the organization whose project used it."""
        return event.project.organization if event.project else None

    def has_refund_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may refund, which needs permission to top up."""
        return bool(request.user.has_perm("billing.add_creditgrant"))

    @admin.action(description="Refund: give back what it cost", permissions=["refund"])
    def refund(self, request: HttpRequest, events: QuerySet[UsageEvent]) -> TemplateResponse | None:
        """Refund each of the selected events, after a second look."""
        look = SecondLook(
            self,
            request,
            events.select_related("project__organization").order_by("booked_at", "pk"),
            title="Refund events",
            effect=_effect_of_refund,
            button="Refund these events",
        )
        if not look.is_confirmed:
            return look.answer
        refunded = 0
        for event in look.rows:
            try:
                refund(event, actor=actor(request), reason=look.reason)
                refunded += 1
            except NotRefundable as error:
                self.message_user(request, str(error), messages.WARNING)
        self.message_user(request, f"{refunded} event(s) refunded.", messages.SUCCESS)
        return None


def _effect_of_refund(event: UsageEvent) -> str:
    whose = str(event.project.organization) if event.project else "Nobody"
    return (
        f"{whose} gets back what the {event.model or 'unnamed'} generation of "
        f"{moment(event.occurred_at, seconds=True)} still costs: at most "
        f"{display(event.credits_micro)} credits. A refund can't be taken back."
    )


class _RefundsWithCredits(CompletedList):
    """Looks up at once what was given back to all runs of a page."""

    def complete(self, rows: Sequence[Any]) -> None:
        """Add the credits."""
        given_back = given_back_to_task_runs(row.pk for row in rows)
        for row in rows:
            row.given_back_micro = given_back.get(row.pk, 0)


@admin.register(RunRefund)
class RunRefundAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[RunRefund]):
    """The task runs whose cost was given back, and why."""

    list_display = ["made_at", "task_run_id", "organization", "project", "failure", "given_back"]
    failure = words_column("reason", "reason", {})
    list_filter = ["reason", "made_at"]
    list_select_related = ["project__organization"]
    search_fields = ["project__name", "project__organization__name", "reason"]
    search_ids = ["task_run_id"]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list that looks up credits."""
        return _RefundsWithCredits

    @admin.display(description="organization")
    def organization(self, refund: RunRefund) -> Any:
        """Return the organization that was refunded."""
        return refund.project.organization

    @admin.display(description="credits")
    def given_back(self, refund: Any) -> str:
        """Return the credits that were given back so far."""
        return display(refund.given_back_micro)


@admin.register(AttemptRefund)
class AttemptRefundAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[AttemptRefund]):
    """The lost attempts at task runs whose cost was given back."""

    list_display = ["made_at", "task_run_id", "project", "since", "until", "reason"]
    list_filter = ["made_at"]
    list_select_related = ["project__organization"]
    search_fields = ["project__name", "project__organization__name"]
    search_ids = ["task_run_id"]


@admin.register(DailyUsage)
class DailyUsageAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[DailyUsage]):
    """The daily usage report."""

    list_display = [
        "day",
        "organization",
        "project",
        "bucket",
        "product_title",
        "model",
        "distinct_id",
        "number_of_events",
        "credits",
        "tokens_in",
        "tokens_out",
    ]
    list_filter = [("resource", BucketFilter), ("product", ProductFilter), "day"]
    bucket = words_column("resource", "bucket", BUCKETS)
    product_title = words_column("product", "product", TITLES)
    list_select_related = ["organization", "project__organization"]
    search_fields = ["organization__name", "project__name", "model"]
    search_ids = ["distinct_id__icontains", "task_run_id"]
    credits = credits_column("credits_micro", "credits")
    number_of_events = thousands_column("events")
    tokens_in = thousands_column("input_tokens")
    tokens_out = thousands_column("output_tokens")
