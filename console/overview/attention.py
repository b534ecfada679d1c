"""What needs attention: stuck events, messages and decisions, and errors of providers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Min, Q
from django.urls import reverse
from django.utils.http import urlencode

from billing.models import Account, QuarantinedEvent, UsageEvent
from billing.verification.drift import drifted
from projects.models import RotatingToken
from quota.moments import moment
from workflows.models import CreditRequest, FollowUp, Mention, Notice

LATE = timedelta(minutes=5)
"""After this time, something that a task does within seconds counts as stuck."""
PROVIDER_ERRORS = timedelta(hours=1)
GIVEN_UP = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Concern:
    """Something to look at: a sentence, what to do, and the page to do it on."""

    sentence: str
    advice: str
    link: str


def concerns(user: Any, now: datetime) -> list[Concern] | None:
    """Return the concerns that the user may see, or None if they may see no kind of concern."""
    allowed = [find for permissions, find in _KINDS if user.has_perms(permissions)]
    if not allowed:
        return None
    return [concern for find in allowed for concern in find(now)]


def _quarantine(_now: datetime) -> Iterator[Concern]:
    waiting = QuarantinedEvent.objects.filter(state=QuarantinedEvent.State.OPEN)
    found = waiting.aggregate(number=Count("pk"), since=Min("received_at"))
    if found["number"]:
        yield Concern(
            f"{_count(found['number'], 'usage event')} could not be booked, the oldest since "
            f"{moment(found['since'])}.",
            "Book or discard each one. Until then their credits count as spent.",
            _list("billing_quarantinedevent", state__exact="open"),
        )


def _drift(_now: datetime) -> Iterator[Concern]:
    number = len(drifted())
    if number:
        yield Concern(
            f"The totals of {_count(number, 'account')} differ from the ledger.",
            "They are rebuilt within a minute. If this stays, run manage.py verify_ledger.",
            _list("billing_account"),
        )


def _late_decisions(now: datetime) -> Iterator[Concern]:
    late = Account.objects.filter(decide_again_at__lt=now - LATE)
    number = late.count()
    if number:
        yield Concern(
            f"The decisions about {_count(number, 'account')} are overdue.",
            "Check that the Celery worker and beat run: they decide every two seconds.",
            _list("billing_account"),
        )


def _provider_errors(now: datetime) -> Iterator[Concern]:
    recent = UsageEvent.objects.filter(booked_at__gte=now - PROVIDER_ERRORS, booked_at__lte=now)
    found = recent.order_by().aggregate(
        calls=Count("pk"),
        errors=Count("pk", filter=Q(is_error=True)),
    )
    if not found["errors"]:
        return
    kinds = (
        recent.filter(is_error=True)
        .order_by()
        .values_list("provider", "http_status")
        .annotate(number=Count("pk"))
        .order_by("-number")[:3]
    )
    named = ", ".join(
        f"{number:,} × {provider or 'unnamed provider'}" + (f" {status}" if status else "")
        for provider, status, number in kinds
    )
    yield Concern(
        f"{found['errors']:,} of {_count(found['calls'], 'generation')} in the last hour ended "
        f"with an error: {named}.",
        "If this goes on, look at the provider's status page.",
        _list("billing_usageevent", is_error__exact="1"),
    )


def _given_up(now: datetime) -> Iterator[Concern]:
    late = Q(state__in=Notice.UNSENT, next_attempt_at__lt=now - LATE)
    # "erased" and "stopped" are ends that somebody asked for.
    wanted = ~Q(error__in=["erased", "stopped"])
    lost = Q(state=Notice.State.GIVEN_UP, created_at__gte=now - GIVEN_UP) & wanted
    found = Notice.objects.filter(late | lost).aggregate(
        late=Count("pk", filter=late), lost=Count("pk", filter=lost)
    )
    if found["lost"]:
        yield Concern(
            f"{_count(found['lost'], 'message')} of the last 7 days could not be posted to Slack.",
            "Each one says what Slack answered.",
            _list("workflows_notice", state__exact=Notice.State.GIVEN_UP),
        )
    if found["late"]:
        yield Concern(
            f"{_count(found['late'], 'message')} to Slack should have been sent by now.",
            "Check that the Celery worker and beat run.",
            _list("workflows_notice", state__exact=Notice.State.PENDING),
        )


def _bot_tokens(now: datetime) -> Iterator[Concern]:
    spent = Q(refresh_at__isnull=True)
    late = ~Q(problem="") & Q(expires_at__lt=now + timedelta(hours=1))
    tokens = RotatingToken.objects.filter(spent | late, workspace__is_active=True)
    for token in tokens.select_related("workspace").defer("refresh_token", "workspace__bot_token"):
        yield Concern(
            f"The bot token of {token.workspace} expires at {moment(token.expires_at)} and was "
            f"not renewed ({token.problem}).",
            "Install the app again."
            if token.refresh_at is None
            else "Check SLACK_CLIENT_ID and SLACK_CLIENT_SECRET of Celery.",
            reverse("admin:projects_slackworkspace_change", args=[token.workspace_id]),
        )


def _undecided_mentions(now: datetime) -> Iterator[Concern]:
    stuck = Mention.objects.filter(state=Mention.State.RECEIVED, received_at__lt=now - LATE).count()
    if stuck:
        yield Concern(
            f"{_count(stuck, 'mention')} waited more than five minutes to start.",
            "Check that Temporal can be reached and that the Celery worker and beat run.",
            _list("workflows_mention", state__exact=Mention.State.RECEIVED),
        )


def _undelivered_follow_ups(now: datetime) -> Iterator[Concern]:
    stuck = FollowUp.objects.filter(
        state=FollowUp.State.RECEIVED, received_at__lt=now - LATE
    ).count()
    if stuck:
        yield Concern(
            f"{_count(stuck, 'follow-up')} waited more than five minutes for its workflow.",
            "Check that Temporal can be reached and that the Celery worker and beat run.",
            _list("workflows_followup", state__exact=FollowUp.State.RECEIVED),
        )


def _requests_for_credits(_now: datetime) -> Iterator[Concern]:
    waiting = CreditRequest.objects.filter(state=CreditRequest.State.ASKED).count()
    if waiting:
        yield Concern(
            f"{_count(waiting, 'request')} for credits wait{'s' if waiting == 1 else ''} for an "
            "answer in Slack.",
            "Adding credits answers it too: the mention then runs.",
            _list("workflows_creditrequest", state__exact=CreditRequest.State.ASKED),
        )


_KINDS: tuple[tuple[tuple[str, ...], Callable[[datetime], Iterator[Concern]]], ...] = (
    (("billing.view_quarantinedevent",), _quarantine),
    (("billing.view_account", "billing.view_usageevent"), _drift),
    (("billing.view_account",), _late_decisions),
    (("billing.view_usageevent",), _provider_errors),
    (("workflows.view_creditrequest",), _requests_for_credits),
    (("projects.view_slackworkspace",), _bot_tokens),
    (("workflows.view_notice",), _given_up),
    (("workflows.view_mention",), _undecided_mentions),
    (("workflows.view_followup",), _undelivered_follow_ups),
)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _list(name: str, **filters: str) -> str:
    page = reverse(f"admin:{name}_changelist")
    return f"{page}?{urlencode(filters)}" if filters else page
