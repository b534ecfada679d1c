"""The names of Slack's users and channels, for pages that would otherwise show their ids.

A page never waits for Slack. It shows what is known, and notes which names a task should look up:
those that nobody asked for before, and those that are older than a day.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import NamedTuple

import structlog
from django.db import DatabaseError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from projects.models import SlackName, SlackWorkspace

log = structlog.get_logger(__name__)

FRESH = timedelta(days=1)
NAMED = ("U", "W", "C", "G")
"""The first letters of ids that can have a name. Direct messages (D…) have none."""


class SlackId(NamedTuple):
    """A user or channel of a workspace, which is given by its primary key."""

    workspace_id: int
    slack_id: str


class Person(NamedTuple):
    """A Slack user of usage events: their id, name (or id) and workspace."""

    user_id: str
    name: str
    workspace: str


def names_of(wanted: Iterable[SlackId]) -> Mapping[SlackId, str]:
    """Return the known names, and note which ones to look up. Takes one to three queries."""
    asked = {each for each in wanted if each.slack_id.startswith(NAMED)}
    if not asked:
        return {}
    rows = SlackName.objects.filter(
        workspace__in={each.workspace_id for each in asked},
        slack_id__in={each.slack_id for each in asked},
    )
    known = {SlackId(row.workspace_id, row.slack_id): row for row in rows}
    _note_missing(asked - known.keys())
    stale_since = timezone.now() - FRESH
    _note_stale(
        row.pk
        for key, row in known.items()
        if key in asked
        and not row.is_due
        and (row.looked_up_at is None or row.looked_up_at < stale_since)
    )
    return {key: row.name for key, row in known.items() if key in asked and row.name}


def people(distinct_ids: Iterable[str | None]) -> dict[str, Person]:
    """Return the Slack users among the users of usage events, by their `slack:T…:U…`."""
    parts = {each: each.split(":") for each in distinct_ids if each and _is_slack_user(each)}
    if not parts:
        return {}
    teams = {team for _, team, _ in parts.values()}
    found = SlackWorkspace.objects.filter(
        Q(team_id__in=teams) | Q(team_id="", enterprise_id__in=teams)
    )
    workspaces = {row.team_id or row.enterprise_id: row for row in found.defer("bot_token")}
    names = names_of(
        SlackId(workspaces[team].pk, user) for _, team, user in parts.values() if team in workspaces
    )
    return {
        distinct_id: _person(workspaces.get(team), team, user, names)
        for distinct_id, (_, team, user) in parts.items()
    }


def display_name(distinct_id: str, known: Mapping[str, Person]) -> str:
    """Return the name of a user if it is known, and their `distinct_id` otherwise."""
    person = known.get(distinct_id)
    return person.name if person and person.name != person.user_id else distinct_id


def due() -> QuerySet[SlackName]:
    """Return the names to look up."""
    return SlackName.objects.filter(is_due=True, is_erased=False)


def store(row: SlackName, name: str | None) -> None:
    """Store the name that Slack gave. If Slack has none (None), the old name stays."""
    changes = {"name": name[:200]} if name is not None else {}
    SlackName.objects.filter(pk=row.pk, is_erased=False).update(
        is_due=False, looked_up_at=timezone.now(), **changes
    )


def erase(workspaces: QuerySet[SlackWorkspace], user_id: str) -> None:
    """Forget the name of a user for good. Pages show the id."""
    for workspace_id in workspaces.values_list("pk", flat=True):
        SlackName.objects.update_or_create(
            workspace_id=workspace_id,
            slack_id=user_id,
            defaults={"name": "", "is_due": False, "is_erased": True},
        )


def _person(
    workspace: SlackWorkspace | None, team: str, user_id: str, names: Mapping[SlackId, str]
) -> Person:
    if workspace is None:
        return Person(user_id, user_id, team)
    return Person(user_id, names.get(SlackId(workspace.pk, user_id), user_id), str(workspace))


def _is_slack_user(distinct_id: str) -> bool:
    return distinct_id.startswith("slack:") and distinct_id.count(":") == 2


def _note_missing(missing: Iterable[SlackId]) -> None:
    rows = [SlackName(workspace_id=key.workspace_id, slack_id=key.slack_id) for key in missing]
    if rows:
        _write(lambda: SlackName.objects.bulk_create(rows, ignore_conflicts=True))


def _note_stale(stale: Iterable[int]) -> None:
    keys = list(stale)
    if keys:
        _write(lambda: SlackName.objects.filter(pk__in=keys).update(is_due=True))


def _write(write: Callable[[], object]) -> None:
    """Write. If the database can't, a later page notes the names."""
    try:
        with transaction.atomic():
            write()
    except DatabaseError as error:
        log.warning("slack names are not noted", error=type(error).__name__)
