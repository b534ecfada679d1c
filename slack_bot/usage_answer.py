"""The answer to `/tollgate usage`: what the team and the asker used, and the asker's last tasks."""

from datetime import datetime

from django.conf import settings
from django.utils import timezone

from billing.credits import display
from billing.decisions.timeline import load_timelines
from billing.models import Account
from billing.reports.ranking import Ranking, rank
from billing.reports.sums import NOTHING, Span, Sums, Used
from billing.reports.usage import usage_of_task_runs
from coding_tasks.models import CodingTask, TaskRun
from projects.models import SlackWorkspace
from quota.resources import AI_CREDITS
from workflows.credit_requests.deciding import may_decide
from workflows.wording import escape, person

_TASKS = 5
_SPENDERS = 5
_LONGEST_TITLE = 80


def usage_answer(workspace: SlackWorkspace, user_id: str) -> str:
    """Return what the team and the user used in this period, and the user's newest tasks.

    Those who may approve credits are told who used most, too.
    """
    now = timezone.now()
    used, since = _used_by_user(workspace, now)
    own = used.get(workspace.distinct_id(user_id), NOTHING)
    ranking = rank(used, _SPENDERS)
    lines = [_totals(ranking, own, since), *_tasks(workspace, user_id)]
    if may_decide(workspace, user_id):
        lines += _spenders(ranking)
    return "\n".join(lines)


def _used_by_user(workspace: SlackWorkspace, now: datetime) -> tuple[dict[str, Used], datetime]:
    """Return what each user of the account used in this period, and when it began."""
    organization = workspace.project.organization
    account = Account.objects.filter(organization=organization, resource=AI_CREDITS).first()
    if account is None:
        return {}, now
    period = load_timelines([account.pk])[account.pk].period_at(now)
    whole = Span(period.start, period.end)
    sums = Sums(account, whole).by([whole], "distinct_id")
    return {key: used for (key,), used in sums.items()}, period.start


def _totals(ranking: Ranking, own: Used, since: datetime) -> str:
    total = ranking.total.credits_micro
    share = f" ({own.credits_micro * 100 // total} %)" if total > 0 else ""
    return (
        f"Since {since:%Y-%m-%d}, your team has used {escape(display(total))} "
        f"{escape(settings.BOT_NAME)} AI credits, and you "
        f"{escape(display(own.credits_micro))}{share}."
    )


def _tasks(workspace: SlackWorkspace, user_id: str) -> list[str]:
    tasks = CodingTask.objects.filter(workspace=workspace, owner_slack_user_id=user_id)
    newest = list(tasks.order_by("-created_at")[:_TASKS])
    runs = dict(TaskRun.objects.filter(task__in=newest).values_list("pk", "task_id"))
    costs = dict.fromkeys((task.pk for task in newest), 0)
    for run, micro in usage_of_task_runs(runs).items():
        costs[runs[run]] += micro
    return ["*Your last tasks*" if newest else "You have had no tasks yet."] + [
        f"• {escape(task.title[:_LONGEST_TITLE])}: {escape(display(costs[task.pk]))} credits, "
        f"{task.state}"
        for task in newest
    ]


def _spenders(ranking: Ranking) -> list[str]:
    return ["*Who used most*"] * bool(ranking.top) + [
        f"• {_name(str(row.key or ''))}: {escape(display(row.used.credits_micro))} credits "
        f"({row.percent} %)"
        for row in ranking.top
    ]


def _name(distinct_id: str) -> str:
    kind, _, slack_id = distinct_id.rpartition(":")
    return person(slack_id) if kind.startswith("slack:") else escape(distinct_id or "nobody named")
