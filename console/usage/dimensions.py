"""What usage can be divided by, with names that people know: users, models, channels, threads."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import CharField, F, OuterRef, Subquery, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast, Concat
from django.urls import reverse
from django.utils.http import urlencode

from billing.products import TITLES
from coding_tasks.models import CodingTask, TaskRun
from projects.models import Project, SlackWorkspace, User
from projects.slack.names import SlackId, names_of, people

_RUNS = TaskRun.objects.filter(
    pk=OuterRef("task_run_id"), task__origin=CodingTask.Origin.SLACK
).order_by()
_CHANNEL = (Cast("task__workspace_id", CharField()), Value("/"), F("task__channel_id"))
THREAD = Subquery(
    _RUNS.values(
        thread=Concat(*_CHANNEL, Value("/"), F("task__thread_ts"), output_field=CharField())
    )
)
"""`workspace/channel/ts` of a run's thread; None for a call that belongs to no thread."""

CHANNEL = Subquery(_RUNS.values(channel=Concat(*_CHANNEL, output_field=CharField())))
"""`workspace/channel` of a run's thread; None for a call that belongs to no thread."""

USER = "distinct_id"
"""The user that a call is for, as the gateway reports it. Slack users are `slack:T…:U…`."""

OUTSIDE = "choosing repositories, tasks over the API, and requests of clients and scripts"


@dataclass(frozen=True, slots=True)
class Label:
    """What people call a key. `link` is empty if there is no page; `values` are for CSV."""

    name: str
    detail: str = ""
    link: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dimension:
    """Something that usage can be divided by. `columns` are the headers of `Label.values`."""

    title: str
    expression: str | Combinable
    columns: tuple[str, ...]
    labels: Callable[[Sequence[Any]], Mapping[Any, Label]]


def _users(keys: Sequence[str]) -> dict[str, Label]:
    known = people(keys)
    numbers = [int(key) for key in keys if _is_number(key)]
    members = User.objects.in_bulk(numbers) if numbers else {}
    return {key: _user(key, known, members) for key in keys}


def _user(key: str, known: Mapping[str, Any], members: Mapping[int, User]) -> Label:
    if key in known:
        person = known[key]
        link = f"{reverse('threads')}?{urlencode({'q': person.user_id})}"
        named = person.name != person.user_id
        detail = f"{person.user_id} in {person.workspace}" if named else person.workspace
        name = person.name if named else ""
        return Label(person.name, detail, link, (key, name, person.workspace))
    member = members.get(int(key)) if _is_number(key) else None
    if member is not None:
        name = member.get_username()
        return Label(name, "by their own key", "", (key, name, ""))
    return Label(key or "(not named)", values=(key, "", ""))


def _models(keys: Sequence[str]) -> dict[str, Label]:
    return {key: Label(key or "(not named)", values=(key,)) for key in keys}


def _products(keys: Sequence[str]) -> dict[str, Label]:
    return {key: Label(TITLES.get(key, key), values=(key,)) for key in keys}


def _projects(keys: Sequence[int]) -> dict[int, Label]:
    names = {pk: project.name for pk, project in Project.objects.in_bulk(keys).items()}
    return {
        key: Label(names.get(key, str(key)), values=(str(key), names.get(key, ""))) for key in keys
    }


def _threads(keys: Sequence[str | None]) -> dict[str | None, Label]:
    parts = {key: key.split("/") for key in keys if key is not None}
    channels = _channels([f"{workspace}/{channel}" for workspace, channel, _ in parts.values()])
    tasks = CodingTask.objects.filter(
        workspace__in={key[0] for key in parts.values()},
        thread_ts__in=[key[2] for key in parts.values()],
    ).order_by("-created_at")
    titles = {
        f"{workspace}/{channel}/{ts}": title
        for workspace, channel, ts, title in tasks.values_list(
            "workspace_id", "channel_id", "thread_ts", "title"
        )
    }
    labels: dict[str | None, Label] = {
        None: Label("In no thread", OUTSIDE, values=("", "", "", ""))
    }
    for key, (workspace, channel, ts) in parts.items():
        where = channels[f"{workspace}/{channel}"]
        link = reverse("thread", args=[int(workspace), channel, ts])
        title = titles.get(key, key)
        detail = f"{where.name} in {where.values[2]}"
        labels[key] = Label(title, detail, link, (channel, where.values[1], ts, title))
    return labels


def _channels(keys: Sequence[str | None]) -> dict[str | None, Label]:
    parts = {key: key.split("/") for key in keys if key is not None}
    found = SlackWorkspace.objects.filter(pk__in={key[0] for key in parts.values()})
    workspaces = {str(row.pk): str(row) for row in found.defer("bot_token")} if parts else {}
    names = names_of(SlackId(int(workspace), channel) for workspace, channel in parts.values())
    labels: dict[str | None, Label] = {None: Label("In no channel", OUTSIDE, values=("", "", ""))}
    for key, (workspace, channel) in parts.items():
        name = names.get(SlackId(int(workspace), channel), "")
        team = workspaces.get(workspace, "?")
        detail = f"{channel} in {team}" if name else team
        labels[key] = Label(name or channel, detail, "", (channel, name, team))
    return labels


def _is_number(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) < 10


USERS = Dimension("User", USER, ("user", "name", "workspace"), _users)
MODELS = Dimension("Model", "model", ("model",), _models)
PRODUCTS = Dimension("Product", "product", ("product",), _products)
PROJECTS = Dimension("Project", "project", ("project", "name"), _projects)
CHANNELS = Dimension("Channel", CHANNEL, ("channel", "channel name", "workspace"), _channels)
THREADS = Dimension("Thread", THREAD, ("channel", "channel name", "ts", "title"), _threads)


def labelled(dimension: Dimension, keys: Iterable[Any]) -> Mapping[Any, Label]:
    """Return the labels of keys. Takes the same number of queries however many there are."""
    return dimension.labels(list(dict.fromkeys(keys)))
