"""Admin pages for accounts and decisions: where an organization stands with a bucket, and why."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from billing.admin.read_only import ReadOnly, credits_column, indented
from billing.admin.standing import StandingColumns, StateFilter, published, with_standing
from billing.admin.words import ReasonFilter, in_words, words_column
from billing.credits import display
from billing.decisions.decision import FAR_FUTURE
from billing.models import Account, Cap, CreditGrant, DecisionRecord, Limit, UsageTotal
from projects.admin_parts.named_search import NamedSearch
from projects.admin_parts.permitted_parts import Link, PermittedParts
from quota.moments import moment
from quota.reason_words import STATES, state_in_words
from quota.reason_words import WORDS as REASONS

SHOWN_DECISIONS = 20

_AMOUNTS = {
    "usage": "used in the period",
    "limit": "limit of the period",
    "remaining": "left, with top-ups",
}
_INSTANTS = {
    "period_start": "period began",
    "exhausted_since": "nothing left since",
    "limited_until": "refused until",
    "suspended_until": "in grace until",
    "resets_at": "usage resets",
}


class LimitInline(ReadOnly, admin.TabularInline[Limit, Account]):
    """Limits, newest first."""

    model = Limit
    fields = ("set_at", "limit", "mode", "grace_days", "anchor_day", "time_zone", "actor", "reason")
    readonly_fields = fields

    @admin.display(description="credits per period")
    def limit(self, row: Limit) -> str:
        """Return the limit in credits, or "unlimited"."""
        return "unlimited" if row.limit_micro is None else display(row.limit_micro)


class CapInline(ReadOnly, admin.TabularInline[Cap, Account]):
    """Caps of projects, users and runs, newest first."""

    model = Cap
    fields = ("set_at", "scope", "subject", "cap", "actor", "reason")
    readonly_fields = fields

    @admin.display(description="credits")
    def cap(self, row: Cap) -> str:
        """Return the cap in credits, or "not capped"."""
        return "not capped" if row.cap_micro is None else display(row.cap_micro)


class GrantInline(ReadOnly, admin.TabularInline[CreditGrant, Account]):
    """Top-ups, newest first."""

    model = CreditGrant
    fields = ("amount", "priority", "starts_at", "expires_at", "voided_at", "actor", "reason")
    readonly_fields = fields
    show_change_link = True
    amount = credits_column("amount_micro", "credits")


class TotalInline(ReadOnly, admin.TabularInline[UsageTotal, Account]):
    """Usage, by stretch of time."""

    model = UsageTotal
    fields = ("starts_at", "ends_at", "usage")
    readonly_fields = fields
    usage = credits_column("usage_micro", "credits used")


def _changes(account: Account) -> Iterator[Link]:
    """Yield links to the forms that set limits, top-ups and caps."""
    for model, title in (("limit", "Set limit"), ("creditgrant", "Top up"), ("cap", "Set a cap")):
        form = reverse(f"admin:billing_{model}_add")
        yield Link((f"billing.add_{model}",), title, f"{form}?account={account.pk}")


def _more(account: Account) -> Iterator[Link]:
    """Yield links to the account's ledger and decisions."""
    for model, title in (("usageevent", "Ledger"), ("decisionrecord", "All decisions")):
        rows = reverse(f"admin:billing_{model}_changelist")
        permission = f"billing.view_{model}"
        yield Link((permission,), title, f"{rows}?account__id__exact={account.pk}")


_STANDING = (
    "organization",
    "resource",
    "used",
    "left",
    "share_used",
    "state_words",
    "limit",
    "because",
    "exhausted_since",
    "resets",
)
"""The columns of the list. They are also the first fields on the page of an account."""


@admin.register(Account)
class AccountAdmin(
    StandingColumns, NamedSearch, PermittedParts, ReadOnly, admin.ModelAdmin[Account]
):
    """One organization's credits of one bucket."""

    list_display = _STANDING
    list_filter = ["resource", ("state", StateFilter), ("reason", ReasonFilter)]
    search_fields = ["organization__name", "resource", "organization__projects__name"]
    search_ids = ["organization__id"]
    named_by = ["organization__name"]
    list_select_related = ["organization"]
    fields = (
        *_STANDING,
        "decide_again_at",
        "version",
        "change",
        "more",
        "why",
    )
    needed = {"why": ("billing.view_decisionrecord",)}
    links = {"change": ("change", _changes), "more": ("more", _more)}
    inlines = [LimitInline, GrantInline, CapInline, TotalInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        """Return the accounts with their published states, in one query."""
        return with_standing(super().get_queryset(request), "organization", OuterRef("resource"))

    because = words_column("reason", "why", REASONS)

    @admin.display(description="resets")
    def resets(self, account: Account) -> str:
        """Return when usage starts from zero again, in the limit's time zone."""
        state = published(account)
        return moment(state.resets_at, state.time_zone) if state and state.resets_at else "–"

    @admin.display(description="latest decisions")
    def why(self, account: Account) -> SafeString:
        """Return the latest decisions that changed the account's state, as links."""
        records = DecisionRecord.objects.filter(account=account)[:SHOWN_DECISIONS]
        return format_html_join(
            "",
            '<a href="{}">{}</a>: {} {}<br>',
            (
                (
                    reverse("admin:billing_decisionrecord_change", args=[record.pk]),
                    moment(record.decided_at, seconds=True),
                    state_in_words(record.state),
                    in_words(REASONS, record.reason),
                )
                for record in records
            ),
        )


def _of_cap(cap: dict[str, Any]) -> str:
    return f"{display(cap['usage_micro'])} of {display(cap['cap_micro'])}"


def _moment(text: str, zone: str) -> str:
    """Return an instant of a stored decision as text for people."""
    instant = datetime.fromisoformat(text)
    if instant >= FAR_FUTURE:
        return "a limit or top-up changes this"
    return moment(instant, zone)


@admin.register(DecisionRecord)
class DecisionRecordAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[DecisionRecord]):
    """Every decision that changed a state, with all its inputs."""

    list_display = [
        "decided_at",
        "account",
        "scope",
        "subject",
        "state_before",
        "state_words",
        "because",
        "version",
    ]
    list_filter = [
        ("state", StateFilter),
        ("reason", ReasonFilter),
        "scope",
        "account__resource",
        "decided_at",
    ]
    search_fields = ["account__organization__name"]
    search_ids = ["account__organization__id", "subject__icontains"]
    list_select_related = ["account__organization"]
    show_full_result_count = False
    fields = [
        "account",
        "scope",
        "subject",
        "decided_at",
        "version",
        "state_before",
        "state_words",
        "because",
        "in_short",
        "made_from",
        "decided",
    ]

    because = words_column("reason", "why", REASONS)
    state_before = words_column("previous_state", "state before", STATES)
    state_words = words_column("state", "state", STATES)

    @admin.display(description="in short")
    def in_short(self, record: DecisionRecord) -> SafeString:
        """Return the amounts and instants that mattered, in credits and in the limit's zone."""
        calendars = record.inputs.get("calendars") or [{}]
        zone = calendars[-1].get("time_zone", "UTC")
        lines = [
            *(
                (f"used of the cap of {cap['scope']} {cap['subject']}", _of_cap(cap))
                for cap in record.inputs.get("caps", ())
                if record.subject
            ),
            *(
                (title, display(record.outcome[name]))
                for name, title in _AMOUNTS.items()
                if record.outcome.get(name) is not None
            ),
            *(
                (title, _moment(record.outcome[name], zone))
                for name, title in _INSTANTS.items()
                if record.outcome.get(name) is not None
            ),
        ]
        return format_html_join("", "{}: {}<br>", lines)

    @admin.display(description="made from")
    def made_from(self, record: DecisionRecord) -> SafeString:
        """Return the whole snapshot, with amounts in micro-credits."""
        return indented(record.inputs)

    @admin.display(description="decided")
    def decided(self, record: DecisionRecord) -> SafeString:
        """Return the whole decision, with amounts in micro-credits."""
        return indented(record.outcome)
