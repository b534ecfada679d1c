"""Quota changes in the change feed: recording them, and reading them for the gateway."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from projects import change_feed
from projects.change_feed import Change
from projects.models import Project
from quota.models import SetMember

PAGE = 5000


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since a cursor, up to `version`, which is the next cursor.

    `is_reset` is True if the cursor can't be used: it is missing, of another feed, ahead of this
    one, or older than the changes that are kept. The reader then forgets everything and continues
    from `version`. `feed` is the feed that the version belongs to.
    """

    version: int
    feed: str
    is_reset: bool = False
    revoked: tuple[str, ...] = ()
    changes: tuple[dict[str, Any], ...] = ()


def record(changed: Iterable[tuple[str, Project]]) -> None:
    """Append a change for each resource and project, with whether it is limited now.

    Call it last in the transaction that writes their rows.
    """
    pairs = list(changed)
    if not pairs:
        return
    limited = set(
        SetMember.objects.filter(
            project__in={project.pk for _, project in pairs},
            limited_until__gt=timezone.now().timestamp(),
        ).values_list("resource", "token")
    )
    change_feed.append(
        Change.Kind.QUOTA,
        [
            {
                "account": f"{project.organization_id}:{resource}",
                "organization_id": str(project.organization_id),
                "project_id": project.pk,
                "resource": resource,
                "limited": (resource, project.api_token) in limited,
            }
            for resource, project in pairs
        ],
    )


def changes_since(since: int | None, feed: str | None) -> Changes:
    """Return at most a page of changes, only the newest of each account and project.

    Versions are assigned in commit order without gaps, so a missing version was deleted for its
    age.
    """
    cursor = change_feed.cursor()
    name = str(cursor.feed)
    reset = Changes(cursor.version, name, is_reset=True)
    if since is None or since > cursor.version or feed not in (None, name):
        return reset
    if since == cursor.version:
        return Changes(since, name)
    rows = list(Change.objects.filter(version__gt=since).order_by("version")[:PAGE])
    version = rows[-1].version if rows else since
    if version - since != len(rows) or not rows:
        return reset
    newest = {
        (row.payload["account"], row.payload["project_id"]): row.payload | {"version": row.version}
        for row in rows
        if row.kind == Change.Kind.QUOTA
    }
    return Changes(
        version,
        name,
        revoked=tuple(
            row.payload["sha256"] for row in rows if row.kind == Change.Kind.CREDENTIAL_REVOKED
        ),
        changes=tuple(newest.values()),
    )
