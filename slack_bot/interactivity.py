"""Searches and choices in the repository picker, and clicks on buttons.

The payloads come from a browser by way of Slack. So we sign the mention and the choice, and check
them against the user, the workspace and the project's repositories.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.signing import BadSignature
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone

from coding_tasks.models import Repository
from projects.models import SlackWorkspace
from slack_bot import credit_requests, installations
from slack_bot import participants as participant_clicks
from slack_bot.events import Installation
from slack_bot.payloads import (
    action_of,
    form,
    identifier,
    is_in_home,
    mapping,
    parse,
    text,
    timestamp,
)
from slack_bot.signature import signed_by_slack
from workflows import notices, participants, wording
from workflows.home import openings
from workflows.intake import mentions, repeating, starting_anew, stop_orders
from workflows.mention_types import NO_REPOSITORY, RepositoryChoice, workflow_id
from workflows.messages import other_repository, run_buttons
from workflows.models import Mention, Notice
from workflows.progress import stop_button
from workflows.quotes import answering
from workflows.quotes import buttons as quote_buttons
from workflows.results import confirmations, undoing
from workflows.slack import picker
from workflows.temporal import client

_PICKERS = (picker.ACTION_ID, picker.START_ANEW_ACTION_ID)


@dataclass(frozen=True, slots=True)
class Interaction:
    """One use of the picker."""

    installations: tuple[Installation, ...]
    """The installations that it can be for: the payload's workspace first, then the user's own."""
    user_id: str
    channel_id: str
    message_ts: str
    block_id: str
    value: str
    """What the user chose or typed."""
    starts_anew: bool
    """Whether the choice starts an answered request anew."""
    ts: str
    """When the choice was made. Empty while somebody types."""


@signed_by_slack
def receive_interaction(_request: HttpRequest, body: bytes) -> HttpResponse:
    """Answer the interaction in the body of a request from Slack."""
    return answer_interaction(parse(form(body).get("payload", "")))


def answer_interaction(payload: dict[str, Any]) -> HttpResponse:
    """Answer a search or a choice in the picker, a click on a button, or a submitted form.

    If Temporal cannot be reached, the answer is 503, and Slack shows the user that it failed.
    """
    if payload.get("type") == "view_submission":
        return credit_requests.receive_form(payload, installations_of(payload)) or HttpResponse()
    if payload.get("type") == "block_actions":
        if answer := credit_requests.receive_click(payload, installations_of(payload)):
            return answer
        takes = (
            _agree,
            _stop,
            _answer_quote,
            _decide_who_writes,
            _offer_other_repository,
            _repeat,
            _undo,
        )
        if any(take(payload) for take in takes):
            return HttpResponse()
    interaction = read(payload)
    if interaction is not None and payload.get("type") == "block_suggestion":
        return JsonResponse({"options": _options(interaction)})
    if interaction is not None and payload.get("type") == "block_actions":
        try:
            _choose(interaction)
        except client.TemporalUnavailable:
            return HttpResponse("try again", status=503, content_type="text/plain")
    return HttpResponse()


def read(payload: dict[str, Any]) -> Interaction | None:
    """Return the use of the picker in a payload, or None if the payload is about something else."""
    if payload.get("type") == "block_suggestion":
        action, value = payload, text(payload.get("value"), 200)
    else:
        action = action_of(payload, *_PICKERS)
        value = text(mapping(action.get("selected_option")).get("value"), 200)
    user_id = _user_of(payload)
    if action.get("action_id") not in _PICKERS or not user_id:
        return None
    container = mapping(payload.get("container"))
    return Interaction(
        installations=installations_of(payload),
        user_id=user_id,
        channel_id=identifier(container.get("channel_id")),
        message_ts=timestamp(container.get("message_ts")),
        block_id=text(action.get("block_id"), 255),
        value=value,
        starts_anew=action["action_id"] == picker.START_ANEW_ACTION_ID,
        ts=timestamp(action.get("action_ts")),
    )


def _agree(payload: dict[str, Any]) -> bool:
    """Handle a click on the button of `results.confirmations`; return whether it was one."""
    click = action_of(payload, confirmations.ACTION_ID)
    if not click:
        return False
    user_id = _user_of(payload)
    for workspace in _workspaces_of(payload):
        if user_id:
            confirmations.agree(workspace, user_id, text(click.get("value"), 200))
    return True


def _stop(payload: dict[str, Any]) -> bool:
    """Handle a click on the button that stops a run; return whether it was one."""
    click = action_of(payload, stop_button.ACTION_ID)
    if not click:
        return False
    user_id = _user_of(payload)
    run_id = stop_button.run_of(text(click.get("value"), 200))
    clicked_at = timestamp(click.get("action_ts")) or f"{time.time():.6f}"
    workspaces = _workspaces_of(payload)
    run = stop_button.run_in(workspaces, run_id) if run_id else None
    if user_id and run is not None:
        stop_orders.obey_click(run, user_id, clicked_at)
        if is_in_home(payload) and run.task.workspace is not None:
            openings.note_click(run.task.workspace, user_id)
    return True


def _answer_quote(payload: dict[str, Any]) -> bool:
    """Handle a click on a button of the question about a run's cost; return whether it was one."""
    click = action_of(payload, *quote_buttons.Action)
    if not click:
        return False
    user_id = _user_of(payload)
    run_id = quote_buttons.run_of(text(click.get("value"), 200))
    answer = quote_buttons.ANSWER_OF[quote_buttons.Action(click["action_id"])]
    for workspace in _workspaces_of(payload):
        if user_id and run_id:
            answering.answer(workspace, run_id, user_id, answer, timezone.now())
    return True


def _decide_who_writes(payload: dict[str, Any]) -> bool:
    """Handle a click on a button about who may write to a task; return whether it was one."""
    click = action_of(payload, participants.LET_JOIN, participants.REMOVE)
    if not click:
        return False
    user_id = _user_of(payload)
    place = participants.place_of(text(click.get("value"), 200))
    for workspace in _workspaces_of(payload):
        if user_id and place:
            clicked_at = timestamp(click.get("action_ts"))
            participant_clicks.take_click(workspace, user_id, click["action_id"], place, clicked_at)
    return True


def _offer_other_repository(payload: dict[str, Any]) -> bool:
    """Handle a click on *Other repository* below an answer; return whether it was one."""
    click = action_of(payload, other_repository.ACTION_ID)
    if not click:
        return False
    user_id = _user_of(payload)
    run_id = other_repository.run_of(text(click.get("value"), 200))
    workspaces = _workspaces_of(payload)
    run = stop_button.run_in(workspaces, run_id) if run_id else None
    if user_id and run is not None:
        starting_anew.offer_picker(run, user_id, timestamp(click.get("action_ts")))
    return True


def _repeat(payload: dict[str, Any]) -> bool:
    """Handle a click that starts work again or goes on with it; return whether it was one."""
    action = action_of(payload, run_buttons.START_AGAIN, run_buttons.GO_ON)
    if not action:
        return False
    user_id = _user_of(payload)
    click = repeating.Click(
        value=text(action.get("value"), 200),
        user_id=user_id,
        ts=timestamp(action.get("action_ts")) or f"{time.time():.6f}",
        goes_on=action["action_id"] == run_buttons.GO_ON,
    )
    if user_id:
        repeating.take_click(_workspaces_of(payload), click)
    return True


def _undo(payload: dict[str, Any]) -> bool:
    """Handle a click that undoes a change; return whether it was one."""
    action = action_of(payload, run_buttons.UNDO)
    if not action:
        return False
    user_id = _user_of(payload)
    run_id = run_buttons.change_of(text(action.get("value"), 200))
    workspaces = _workspaces_of(payload)
    if user_id and run_id:
        undoing.take_click(workspaces, run_id, user_id)
    return True


def installations_of(payload: dict[str, Any]) -> tuple[Installation, ...]:
    """Return the installations that an interaction can be for.

    In a channel that another company hosts, the payload may name the host's workspace.
    """
    team, enterprise = mapping(payload.get("team")), mapping(payload.get("enterprise"))
    enterprise_id = identifier(enterprise.get("id") or team.get("enterprise_id"))
    is_org_wide = payload.get("is_enterprise_install") in (True, "true")
    teams = dict.fromkeys(
        identifier(mapping(each).get(name))
        for each, name in ((team, "id"), (payload.get("user"), "team_id"))
    )
    return tuple(Installation(team_id, enterprise_id, is_org_wide=is_org_wide) for team_id in teams)


def _user_of(payload: dict[str, Any]) -> str:
    """Return who clicked, or an empty string."""
    return identifier(mapping(payload.get("user")).get("id"))


def _workspaces_of(payload: dict[str, Any]) -> Iterator[SlackWorkspace]:
    """Return the click's workspaces that are installed here. At most one owns what was clicked."""
    return filter(None, map(installations.find, installations_of(payload)))


def _workspace(named: Iterable[Installation]) -> SlackWorkspace | None:
    """Return the first workspace that is installed here, or None."""
    found = map(installations.find, named)
    return next((each for each in found if each is not None), None)


def _mention(interaction: Interaction) -> Mention | None:
    """Return the mention whose picker was used, or None if it isn't of this workspace."""
    workspace = _workspace(interaction.installations)
    if workspace is None:
        return None
    mentions = Mention.objects.filter(workspace=workspace)
    try:
        mention = mentions.filter(pk=picker.mention_of(interaction.block_id)).first()
    except (BadSignature, ValueError):
        # The signature is wrong, but Slack names the picker's message, which leads to the mention.
        mention = mentions.filter(
            notices__kind=Notice.Kind.PICKER,
            notices__channel_id=interaction.channel_id,
            notices__message_ts=interaction.message_ts,
        ).first()
    if mention is not None:
        mention.workspace = workspace
    return mention


def _options(interaction: Interaction) -> list[dict[str, Any]]:
    mention = _mention(interaction)
    if mention is None or mention.user_id != interaction.user_id:
        return []
    project_id = mention.project.pk
    return picker.options(project_id, mention.pk, interaction.value)


def _choose(interaction: Interaction) -> None:
    """Pass the author's choice to the workflow. Tell everybody else once why they can't choose."""
    mention = _mention(interaction)
    if mention is None:
        return
    if mention.user_id != interaction.user_id:
        words = wording.picker_not_yours(interaction.user_id, owner_id=mention.user_id)
        _refuse(mention, f"not-yours:{interaction.user_id}", words, interaction.user_id)
        return
    repository_id = _offered(mention, interaction)
    if repository_id is None:
        _refuse(mention, "invalid", wording.picker_invalid(mention.user_id))
        return
    if interaction.starts_anew:
        _start_anew(mention, repository_id, interaction)
        return
    try:
        client.signal_repository_choice(
            workflow_id(mention.team_id, mention.channel_id, mention.ts),
            RepositoryChoice(repository_id),
        )
    except client.WorkflowEnded:
        expired = wording.picker_expired(mention.user_id, bot_name=settings.BOT_NAME)
        _refuse(mention, "expired", expired)


def _start_anew(request: Mention, repository_id: int, interaction: Interaction) -> None:
    try:
        mention = starting_anew.start(request, repository_id)
    except starting_anew.CannotStart as refused:
        starting_anew.tell_alone(request, request.user_id, interaction.ts, str(refused))
        return
    mentions.admit_or_keep(mention)
    chosen = Repository.objects.filter(pk=repository_id).first()
    starting_anew.show_started(request, chosen.full_name if chosen else "")


def _offered(mention: Mention, interaction: Interaction) -> int | None:
    """Return the chosen repository or `NO_REPOSITORY`. Return None if it wasn't in this picker."""
    try:
        picker.mention_of(interaction.block_id)
        choice = picker.read(interaction.value)
    except (BadSignature, ValueError):
        return None
    if choice.mention_id != mention.pk:
        return None
    if choice.repository_id == NO_REPOSITORY:
        return NO_REPOSITORY
    found = Repository.objects.filter(pk=choice.repository_id, project_id=mention.project.pk)
    return choice.repository_id if found.exists() else None


def _refuse(mention: Mention, why: str, words: str, user_id: str | None = None) -> None:
    key = f"picker-{why}:{mention.pk}"
    notices.send_soon(
        notices.claim(key, Notice.Kind.PICKER_REFUSAL, mention, words, user_id=user_id)
    )
