"""The slash command. Its answers are shown only to the person who asks."""

import time
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone

from billing.credits import display
from projects.models import SlackWorkspace
from quota import gate
from slack_bot import installations
from slack_bot.asker import no_access
from slack_bot.events import Installation
from slack_bot.payloads import form, identifier, text
from slack_bot.signature import signed_by_slack
from slack_bot.usage_answer import top_answer, usage_answer
from workflows import denials, wording
from workflows.home import words
from workflows.home.own_tasks import others_at_work, own_tasks
from workflows.intake import stop_orders


@signed_by_slack
def receive_command(_request: HttpRequest, body: bytes) -> HttpResponse:
    """Answer the command in the body of a request from Slack."""
    return answer_command(form(body))


def answer_command(fields: dict[str, Any]) -> HttpResponse:
    """Answer `status`, `usage`, `top` and `stop`. Answer anything else with help."""
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
    asker = _Asker(
        workspace,
        user_id=identifier(fields.get("user_id")),
        channel_id=identifier(fields.get("channel_id")),
    )
    return _only_to_the_asker(no_access(workspace, asker.user_id) or answer(asker))


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who asks, and where."""

    workspace: SlackWorkspace
    user_id: str
    channel_id: str


def _status(asker: _Asker) -> str:
    return "\n".join([_credits(asker), *_work(asker)])


def _credits(asker: _Asker) -> str:
    workspace = asker.workspace
    try:
        project = workspace.project_in(asker.channel_id)
        verdict = gate.check(project, distinct_id=workspace.distinct_id(asker.user_id))
    except gate.QuotaUnknown:
        return wording.credits_unknown()
    if verdict.state == "unknown":  # the account has no decision yet
        return wording.credits_unknown()
    if verdict.limited:
        return denials.text(verdict)
    remaining = verdict.remaining_micro
    return wording.credits_status(
        remaining=None if remaining is None else display(remaining),
        resets_at=verdict.resets_at,
        bot_name=settings.BOT_NAME,
        time_zone=verdict.time_zone,
        state=verdict.state,
    )


def _work(asker: _Asker) -> list[str]:
    """Return lines about the asker's running tasks, and how many run for others in the project."""
    mine = own_tasks(asker.workspace, asker.user_id, most_recent=0).at_work
    now = timezone.now()
    lines = [words.at_work_title() if mine else words.nothing_at_work()]
    lines += [words.task_line(task, now) for task in mine]
    others = others_at_work(asker.workspace, asker.user_id)
    return lines + [words.others_at_work(others)] * bool(others)


def _stop(asker: _Asker) -> str:
    if not asker.channel_id:
        return wording.nothing_to_stop_here()
    now = f"{time.time():.6f}"
    threads = stop_orders.obey_command(asker.workspace, asker.channel_id, asker.user_id, now)
    return wording.stopped_here(threads) if threads else wording.nothing_to_stop_here()


_ANSWERS = {
    "status": _status,
    "usage": lambda asker: usage_answer(asker.workspace, asker.user_id),
    "top": lambda asker: top_answer(asker.workspace, asker.user_id),
    "stop": _stop,
}


def _only_to_the_asker(answer: str) -> HttpResponse:
    return JsonResponse({"response_type": "ephemeral", "text": answer})
