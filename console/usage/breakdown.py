"""Who and what used the credits: users, threads and models, by names that people know."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import CharField, F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Cast, Concat
from django.urls import reverse
from django.utils.http import urlencode

from billing.reports.ranking import Ranked, Ranking
from billing.reports.sums import Used
from coding_tasks.models import CodingTask, TaskRun
from projects.models import SlackWorkspace, User

THREAD = Subquery(
    TaskRun.objects.filter(pk=OuterRef("task_run_id"), task__origin=CodingTask.Origin.SLACK)
    .order_by()
    .values(
        thread=Concat(
            Cast("task__workspace_id", CharField()),
            Value("/"),
            F("task__channel_id"),
            Value("/"),
            F("task__thread_ts"),
            output_field=CharField(),
        )
    )
)
"""`workspace/channel/ts` of a run's thread; None for a call that belongs to no thread."""

USER = "distinct_id"
"""The user that the gateway says a call is for; Slack users as `slack:T…:U…`."""


@dataclass(frozen=True, slots=True)
class BreakdownRow:
    """One line of a breakdown table; `link` is empty if there is no page to link to."""

    name: str
    detail: str
    link: str
    used: Used
    percent: int


def users(ranking: Ranking) -> list[BreakdownRow]:
    """Return the users of a ranking by `USER`, with their names."""
    teams = {key.split(":")[1] for key in _keys(ranking) if _is_slack(key)}
    workspaces = SlackWorkspace.objects.filter(Q(team_id__in=teams) | Q(enterprise_id__in=teams))
    names = {row.team_id or row.enterprise_id: str(row) for row in workspaces.defer("bot_token")}
    members = User.objects.in_bulk([int(key) for key in _keys(ranking) if _is_number(key)])
    return [_user(row, names, members) for row in ranking.top]


def threads(ranking: Ranking) -> list[BreakdownRow]:
    """Return the threads of a ranking by `THREAD`, each named after its first request."""
    keys = [key.split("/") for key in _keys(ranking)]
    workspaces = _workspaces(key[0] for key in keys)
    tasks = CodingTask.objects.filter(
        workspace__in=[key[0] for key in keys], thread_ts__in=[key[2] for key in keys]
    ).order_by("-created_at")
    titles = {
        f"{workspace}/{channel}/{ts}": title
        for workspace, channel, ts, title in tasks.values_list(
            "workspace_id", "channel_id", "thread_ts", "title"
        )
    }
    return [_thread(row, workspaces, titles) for row in ranking.top]


def models(ranking: Ranking) -> list[BreakdownRow]:
    """Return the models of a ranking."""
    return [
        BreakdownRow(row.key or "(not named)", "", "", row.used, row.percent) for row in ranking.top
    ]


def _user(row: Ranked, workspaces: dict[str, str], members: dict[int, User]) -> BreakdownRow:
    if _is_slack(row.key):
        _, team, user_id = row.key.split(":")
        link = f"{reverse('threads')}?{urlencode({'q': user_id})}"
        return BreakdownRow(user_id, workspaces.get(team, team), link, row.used, row.percent)
    member = members.get(int(row.key)) if _is_number(row.key) else None
    if member is not None:
        return BreakdownRow(member.get_username(), "by their own key", "", row.used, row.percent)
    return BreakdownRow(row.key or "(not named)", "", "", row.used, row.percent)


def _thread(row: Ranked, workspaces: dict[str, str], titles: dict[str, str]) -> BreakdownRow:
    if row.key is None:
        detail = "choosing repositories, tasks over the API, and requests of clients and scripts"
        return BreakdownRow("In no thread", detail, "", row.used, row.percent)
    workspace, channel, ts = row.key.split("/")
    link = reverse("thread", args=[int(workspace), channel, ts])
    detail = f"{channel} in {workspaces.get(workspace, '?')}"
    return BreakdownRow(titles.get(row.key, row.key), detail, link, row.used, row.percent)


def _keys(ranking: Ranking) -> list[str]:
    return [row.key for row in ranking.top if row.key is not None]


def _is_slack(key: str) -> bool:
    return key.startswith("slack:") and key.count(":") == 2


def _is_number(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) < 10


def _workspaces(ids: Iterable[str]) -> dict[str, str]:
    found = SlackWorkspace.objects.filter(pk__in=set(ids)).defer("bot_token")
    return {str(row.pk): str(row) for row in found}
