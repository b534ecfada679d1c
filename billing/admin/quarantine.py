"""Admin page for events that could not be booked: book them after all, or discard them."""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.admin.read_only import ReadOnly, actor, indented, number
from billing.admin.words import (
    QUARANTINE_REASONS,
    QuarantineReasonFilter,
    in_words,
    words_column,
)
from billing.ingestion import quarantine
from billing.ingestion.events import UnbookableEvent
from billing.ingestion.quarantine import AlreadyDecided
from billing.models import QuarantinedEvent
from projects.admin_parts.named_search import NamedSearch
from projects.admin_parts.second_look import SecondLook
from projects.models import Project
from quota.moments import moment


class DecisionForm(ActionForm):
    """The fields next to the actions: the project to book on, and the reason."""

    project = forms.CharField(required=False, label="Book on project (id)")
    reason = forms.CharField(required=False, max_length=500, label="Reason")


@admin.register(QuarantinedEvent)
class QuarantinedEventAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[QuarantinedEvent]):
    """Events that the gateway delivered and billing could not book."""

    list_display = ["received_at", "event_uuid", "because", "detail", "state", "resolved_by"]
    list_filter = ["state", ("reason", QuarantineReasonFilter), "received_at"]
    search_fields = ["payload"]
    search_ids = ["event_uuid"]
    fields = [
        "event_uuid",
        "because",
        "detail",
        "state",
        "received_at",
        "resolved_at",
        "resolved_by",
        "readable_payload",
    ]
    because = words_column("reason", "why", QUARANTINE_REASONS)
    action_form = DecisionForm
    actions = ["book_now", "discard"]

    @admin.display(description="payload")
    def readable_payload(self, quarantined: QuarantinedEvent) -> SafeString:
        """Return the event as it arrived, indented."""
        try:
            return indented(json.loads(quarantined.payload))
        except RecursionError:
            return format_html('<pre tabindex="0">{}</pre>', quarantined.payload)

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may change quarantined events, and so decide."""
        return bool(request.user.has_perm("billing.change_quarantinedevent"))

    @admin.action(description="Book now", permissions=["decide"])
    def book_now(self, request: HttpRequest, chosen: QuerySet[QuarantinedEvent]) -> None:
        """Book the selected events, on the named project if there is one."""
        named = request.POST.get("project", "").strip()
        project = Project.objects.filter(pk=number(named)).first() if named else None
        if named and project is None:
            text = f"There is no project {named}. Enter the number of a project, as in its address."
            self.message_user(request, text, messages.ERROR)
            return
        booked = 0
        for event in chosen.order_by("received_at"):
            try:
                quarantine.book_now(event, project=project, **_actor_and_reason(request))
                booked += 1
            except UnbookableEvent as error:
                why = f"{in_words(QUARANTINE_REASONS, error.reason)} {error.detail}".strip()
                self.message_user(request, f"{event}: {why}", messages.WARNING)
            except AlreadyDecided as error:
                self.message_user(request, f"{event}: {error}", messages.WARNING)
        self.message_user(request, f"{booked} event(s) booked.", messages.SUCCESS)

    @admin.action(description="Discard: nobody pays", permissions=["decide"])
    def discard(
        self, request: HttpRequest, chosen: QuerySet[QuarantinedEvent]
    ) -> TemplateResponse | None:
        """Discard the selected events, after a second look."""
        look = SecondLook(
            self,
            request,
            chosen.order_by("received_at", "pk"),
            title="Discard events",
            effect=_effect_of_discarding,
            button="Discard these events",
        )
        if not look.is_confirmed:
            return look.answer
        discarded = 0
        for event in look.rows:
            try:
                quarantine.discard(event, actor=actor(request), reason=look.reason)
                discarded += 1
            except AlreadyDecided as error:
                self.message_user(request, f"{event}: {error}", messages.WARNING)
        self.message_user(request, f"{discarded} event(s) discarded.", messages.SUCCESS)
        return None


def _effect_of_discarding(event: QuarantinedEvent) -> str:
    return (
        f"Nobody ever pays for {event}, received {moment(event.received_at, seconds=True)}. The "
        "gateway gets back what it had debited for it."
    )


def _actor_and_reason(request: HttpRequest) -> dict[str, Any]:
    return {"actor": actor(request), "reason": request.POST.get("reason", "").strip()}
