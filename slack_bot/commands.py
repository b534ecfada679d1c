"""The slash command. Its answers are shown only to the person who asks."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from projects.models import SlackWorkspace
from quota import gate
from quota.resources import format_credits
from slack_bot import installations
from slack_bot.asker import no_access
from slack_bot.events import Installation
from slack_bot.payloads import form, identifier, text
from slack_bot.signature import signed_by_slack
from slack_bot.usage_answer import usage_answer
from workflows import denials, wording


@signed_by_slack
def receive_command(_request: HttpRequest, body: bytes) -> HttpResponse:
    """Answer the command in the body of a request from Slack."""
    return answer_command(form(body))


def answer_command(fields: dict[str, Any]) -> HttpResponse:
    """Answer `status` with the credits left, `usage` with what was used, else with help."""
    if fields.get("ssl_check"):
        return HttpResponse()
    answer = _ANSWERS.get(text(fields.get("text"), 100).strip().lower())
    if answer is None:
        command = text(fields.get("command"), 50)
        return _only_to_the_asker(wording.command_help(command, bot_name=settings.BOT_NAME))
    workspace = installations.find(
        Installation(
            team_id=identifier(fields.get("team_id")),
            enterprise_id=identifier(fields.get("enterprise_id")),
            is_org_wide=fields.get("is_enterprise_install") in (True, "true"),
        )
    )
    if workspace is None:
        return _only_to_the_asker(wording.workspace_not_connected(bot_name=settings.BOT_NAME))
    user_id = identifier(fields.get("user_id"))
    return _only_to_the_asker(no_access(workspace, user_id) or answer(workspace, user_id))


def _status(workspace: SlackWorkspace, user_id: str) -> str:
    try:
        verdict = gate.check(workspace.project, distinct_id=workspace.distinct_id(user_id))
    except gate.QuotaUnknown:
        return wording.credits_unknown()
    if verdict.state == "unknown":  # nothing was ever decided about the account
        return wording.credits_unknown()
    if verdict.limited:
        return denials.text(verdict)
    return wording.credits_status(
        remaining=(
            None if verdict.remaining_micro is None else format_credits(verdict.remaining_micro)
        ),
        resets_at=verdict.resets_at,
        bot_name=settings.BOT_NAME,
        time_zone=verdict.time_zone,
    )


_ANSWERS = {"status": _status, "usage": usage_answer}


def _only_to_the_asker(words: str) -> HttpResponse:
    return JsonResponse({"response_type": "ephemeral", "text": words})
