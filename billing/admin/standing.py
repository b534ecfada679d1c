"""Sortable columns that say where an account stands: used, left, share and state."""

from typing import Any

from django.contrib import admin
from django.db.models import F, FloatField, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Cast, Coalesce, NullIf

from billing.admin.read_only import exact_or_nothing
from billing.admin.words import WordsFilter
from billing.credits import MAXIMUM_MICRO, display, display_share
from projects.admin_parts.csv_column import in_csv
from quota.account_state import AccountState, from_json
from quota.models import QuotaState
from quota.published.amounts import PublishedAmount
from quota.reason_words import STATES, state_in_words


def with_standing(rows: QuerySet[Any], organization: str, resource: Any) -> QuerySet[Any]:
    """Return the rows with their published states, in one query.

    `organization` names the field with the organization, `resource` is a bucket or an `OuterRef`.
    """
    states = QuotaState.objects.filter(organization=OuterRef(organization), resource=resource)
    found: QuerySet[Any] = rows.annotate(
        document=Subquery(states.values("document")[:1]),
        published_state=Coalesce(Subquery(states.values("state")[:1]), Value("")),
        used_micro=PublishedAmount("document", name="usage_micro"),
        limit_micro=PublishedAmount("document", name="limit_micro"),
        left_micro=PublishedAmount("document", name="remaining_micro"),
    ).annotate(
        share=Cast(Coalesce("used_micro", 0), FloatField())
        / NullIf(Coalesce("used_micro", 0) + F("left_micro"), 0)
    )
    return found


class StateFilter(WordsFilter):
    """Filters by the state of an account."""

    words = {name: title for name, title in STATES.items() if name not in ("", "unknown")}


def published(row: Any) -> AccountState | None:
    """Return the state that `with_standing` added, or None if nothing was decided yet."""
    return None if row.document is None else from_json(row.document)


class StandingColumns:
    """A mixin for a `ModelAdmin` whose rows come from `with_standing`."""

    @admin.display(description="state", ordering="published_state")
    def state_words(self, row: Any) -> str:
        """Return the state in words."""
        return state_in_words(row.published_state)

    @in_csv(lambda row: exact_or_nothing(row.used_micro))
    @admin.display(description="credits used", ordering=Coalesce("used_micro", -1))
    def used(self, row: Any) -> str:
        """Return this period's usage."""
        state = published(row)
        return display(state.usage_micro if state else None)

    @in_csv(lambda row: exact_or_nothing(row.limit_micro))
    @admin.display(description="limit", ordering=Coalesce("limit_micro", MAXIMUM_MICRO))
    def limit(self, row: Any) -> str:
        """Return the limit of the period."""
        state = published(row)
        if state is None:
            return "–"
        if state.limit_micro is None:
            return "unlimited"
        return f"{display(state.limit_micro)} ({state.mode})"

    @in_csv(lambda row: exact_or_nothing(row.left_micro))
    @admin.display(description="credits left", ordering=Coalesce("left_micro", MAXIMUM_MICRO))
    def left(self, row: Any) -> str:
        """Return what is left of the limit and top-ups."""
        state = published(row)
        if state is None:
            return "–"
        return "unlimited" if state.limit_micro is None else display(state.remaining_micro)

    @in_csv(lambda row: "" if row.share is None else f"{100 * row.share:.2f}")
    @admin.display(description="share used", ordering=Coalesce("share", -1.0))
    def share_used(self, row: Any) -> str:
        """Return the used share of the limit and top-ups."""
        state = published(row)
        if state is None:
            return "–"
        return display_share(state.percent_used, state.usage_micro or 0)
