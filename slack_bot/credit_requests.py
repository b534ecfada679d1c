"""Clicks on the buttons of requests for credits, and the forms that they open.

Slack allows three seconds, so a click calls Slack at most once: to open a form while the click is
fresh, or to find out whether the person may use the bot.
https://docs.slack.dev/reference/interaction-payloads/ describes the payloads.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import structlog
from django.http import HttpResponse, JsonResponse
from django.utils import timezone

from projects.models import SlackWorkspace
from slack_bot import installations
from slack_bot.asker import SLACK_TIMEOUT, no_access
from slack_bot.events import Installation
from slack_bot.payloads import action_of, identifier, is_in_home, mapping, text, timestamp
from workflows import notices
from workflows.credit_requests import asking, deciding, forms
from workflows.credit_requests.credits_left import account_state
from workflows.credit_requests.deciding import Decision
from workflows.home import openings
from workflows.models import Mention, Notice
from workflows.slack.client import client_for, failure_of

log = structlog.get_logger(__name__)

_ACTIONS = (forms.ASK, forms.APPROVE_FOR_TASK, forms.APPROVE, forms.DECLINE)


@dataclass(frozen=True, slots=True)
class _Click:
    """A click on one of our buttons, and where it was made."""

    workspace: SlackWorkspace
    user_id: str
    channel_id: str
    """Empty in the app's Home tab."""
    thread_ts: str
    action: str
    value: str
    ts: str
    """When it was made. It distinguishes two clicks on the same button."""
    trigger_id: str


def receive_click(payload: dict[str, Any], named: tuple[Installation, ...]) -> HttpResponse | None:
    """Handle a click on a button of a request for credits. Return None for any other button.

    The answer is 503 if the form cannot be opened; Slack then shows that the click failed.
    """
    action = action_of(payload, *_ACTIONS)
    if not action:
        return None
    user_id = identifier(mapping(payload.get("user")).get("id"))
    container = mapping(payload.get("container"))
    channel_id = identifier(container.get("channel_id"))
    value = text(action.get("value"), 200)
    try:
        if action["action_id"] == forms.ASK:
            workspace = _workspace(named, pk=forms.mention_of(value))
        else:
            workspace = _workspace(named, credit_request=forms.request_of(value))
    except ValueError:
        return HttpResponse()
    if workspace is None or not user_id or not (channel_id or is_in_home(payload)):
        return HttpResponse()
    return _take(
        _Click(
            workspace=workspace,
            user_id=user_id,
            channel_id=channel_id,
            thread_ts=timestamp(container.get("thread_ts")),
            action=str(action["action_id"]),
            value=value,
            ts=timestamp(action.get("action_ts")),
            trigger_id=text(payload.get("trigger_id"), 200),
        )
    )


def receive_form(payload: dict[str, Any], named: tuple[Installation, ...]) -> HttpResponse | None:
    """Handle a submitted form. Return None for any other form.

    The answer shows errors at the form's fields.
    """
    view = mapping(payload.get("view"))
    if view.get("callback_id") not in (forms.APPROVE, forms.DECLINE):
        return None
    user_id = identifier(mapping(payload.get("user")).get("id"))
    state = mapping(mapping(view.get("state")).get("values"))
    try:
        request_id = forms.request_of(text(view.get("private_metadata"), 200))
    except ValueError:
        return HttpResponse()
    workspace = _workspace(named, credit_request=request_id)
    if workspace is None:
        return HttpResponse()
    decision = Decision(workspace, request_id, user_id)
    try:
        if view.get("callback_id") == forms.DECLINE:
            deciding.decline(decision, forms.reason_in(state))
        else:
            _approve(decision, state)
    except forms.Invalid as error:
        return _errors(error.field, str(error))
    except deciding.Refused as refused:
        last = "amount" if view.get("callback_id") == forms.APPROVE else "reason"
        return _errors(last, str(refused))
    return HttpResponse()


def _workspace(named: tuple[Installation, ...], **about: UUID) -> SlackWorkspace | None:
    """Return the workspace of the mention, or the first one that is installed here.

    In a channel that another company hosts, Slack names that company's workspace, too.
    """
    found = [each for each in map(installations.find, named) if each is not None]
    mentions = Mention.objects.filter(workspace__in=found, **about)
    owner = mentions.values_list("workspace_id", flat=True).first()
    owners = [each for each in found if each.pk == owner]
    return next(iter(owners + found), None)


def _approve(decision: Decision, state: dict[str, Any]) -> None:
    ends = _period_end(decision.workspace)
    deciding.approve(
        decision,
        forms.amount_in(state),
        forms.expiry_in(state, timezone.now(), ends),
        forms.reason_in(state),
    )


def _period_end(workspace: SlackWorkspace) -> datetime | None:
    state = account_state(workspace)
    return None if state is None else state.resets_at


def _errors(field: str, why: str) -> HttpResponse:
    return JsonResponse({"response_action": "errors", "errors": {field: why}})


def _take(click: _Click) -> HttpResponse:
    if click.action == forms.ASK:
        _ask(click)
        return HttpResponse()
    decision = Decision(click.workspace, forms.request_of(click.value), click.user_id)
    try:
        if click.action == forms.APPROVE_FOR_TASK:
            deciding.approve(decision, None, None, "")
            return HttpResponse()
        request = deciding.check_open(decision)
    except deciding.Refused as refused:
        _tell(click, str(refused))
        return HttpResponse()
    if click.action == forms.DECLINE:
        return _open(click, forms.decline_modal(request.pk))
    has_period = _period_end(click.workspace) is not None
    modal = forms.approval_modal(request.pk, request.suggested_micro, has_period=has_period)
    return _open(click, modal)


def _ask(click: _Click) -> None:
    mention_id = forms.mention_of(click.value)
    mention = Mention.objects.filter(pk=mention_id, workspace=click.workspace).first()
    if mention is None:
        return
    mention.workspace = click.workspace
    words = no_access(click.workspace, click.user_id)
    _tell(click, words or asking.ask(click.workspace, mention, click.user_id))


def _open(click: _Click, modal: dict[str, Any]) -> HttpResponse:
    try:
        client_for(SlackWorkspace.objects.get(pk=click.workspace.pk), SLACK_TIMEOUT).views_open(
            trigger_id=click.trigger_id, view=modal
        )
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        log.warning("slack did not open a form", error=failure.error)
        return HttpResponse("try again", status=503, content_type="text/plain")
    return HttpResponse()


def _tell(click: _Click, words: str) -> None:
    """Tell the person who clicked, and nobody else. Each click is answered once."""
    if not click.channel_id:
        openings.note_click(click.workspace, click.user_id, words)
        return
    clicked = sha256(f"{click.action}:{click.value}:{click.ts}".encode()).hexdigest()
    notice, _ = Notice.objects.get_or_create(
        key=f"click:{click.user_id}:{clicked}",
        defaults={
            "kind": Notice.Kind.OFFER,
            "workspace": click.workspace,
            "channel_id": click.channel_id,
            "thread_ts": click.thread_ts,
            "user_id": click.user_id,
            "destination": Notice.Destination.EPHEMERAL,
            "text": words,
        },
    )
    notices.send_soon(notice)
