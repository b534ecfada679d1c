"""The answers to `/tollgate usage` and `/tollgate top`: who used what in this period."""

from datetime import datetime

from django.conf import settings
from django.utils import timezone

from billing.credits import display
from billing.reports.ranking import Ranking, rank
from billing.reports.sums import Used
from projects.models import SlackWorkspace
from workflows import wording
from workflows.credit_requests.deciding import may_decide
from workflows.home import words
from workflows.home.own_tasks import own_tasks
from workflows.home.team_usage import team_usage
from workflows.wording import escape

_TASKS = 5
_SPENDERS = 5
_TOP_SPENDERS = 15


def usage_answer(workspace: SlackWorkspace, user_id: str) -> str:
    """Return what the team and the user used in this period, and the user's newest tasks.

    Those who may approve credits are told who used most, too.
    """
    usage = team_usage(workspace, timezone.now())
    ranking = rank(usage.by_user, _SPENDERS)
    own = usage.of(workspace.distinct_id(user_id))
    lines = [_totals(ranking, own, usage.since), *_tasks(workspace, user_id)]
    if may_decide(workspace, user_id):
        lines += _spenders(ranking)
    return "\n".join(lines)


def top_answer(workspace: SlackWorkspace, user_id: str) -> str:
    """Return who used most in this period. Only those who may approve credits see it."""
    if not may_decide(workspace, user_id):
        return wording.spenders_are_private()
    usage = team_usage(workspace, timezone.now())
    ranking = rank(usage.by_user, _TOP_SPENDERS)
    if not ranking.top:
        return wording.nothing_used(usage.since)
    lines = [wording.used_by_team(usage.since, display(ranking.total.credits_micro))]
    if ranking.others:
        others = display(ranking.others_used.credits_micro)
        return "\n".join(
            [*lines, *_spenders(ranking), wording.other_spenders(ranking.others, others)]
        )
    return "\n".join([*lines, *_spenders(ranking)])


def _totals(ranking: Ranking, own: Used, since: datetime) -> str:
    total = ranking.total.credits_micro
    share = f" ({own.credits_micro * 100 // total} %)" if total > 0 else ""
    return (
        f"Since {since:%Y-%m-%d}, your team has used {escape(display(total))} "
        f"{escape(settings.BOT_NAME)} AI credits, and you "
        f"{escape(display(own.credits_micro))}{share}."
    )


def _tasks(workspace: SlackWorkspace, user_id: str) -> list[str]:
    tasks = own_tasks(workspace, user_id, most_recent=_TASKS)
    newest = [*tasks.at_work, *tasks.recent][:_TASKS]
    if not newest:
        return ["You have had no tasks yet."]
    now = timezone.now()
    return [words.RECENT, *(words.task_line(task, now) for task in newest)]


def _spenders(ranking: Ranking) -> list[str]:
    return [words.SPENDERS] * bool(ranking.top) + [words.spender(row) for row in ranking.top]
