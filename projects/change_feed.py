"""The change feed: an append-only list that processes outside Django follow by a cursor.

Versions are assigned in commit order: the cursor's row stays locked from `append` to the commit,
so a reader never sees version 812 and learns of 811 later. Call `append` last in a transaction, to
hold that lock briefly.
"""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection, models
from django.db.models import Q
from django.db.transaction import TransactionManagementError


class Change(models.Model):
    """One row of the change feed: what processes outside Django must hear of.

    `version` is assigned in commit order: see `append`.
    """

    class Kind(models.TextChoices):
        QUOTA = "quota"
        CREDENTIAL_REVOKED = "credential_revoked"

    version = models.BigIntegerField(primary_key=True)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    payload = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ["version"]

    def __str__(self) -> str:
        return f"{self.version} {self.kind}"


class ChangeCursor(models.Model):
    """The one row whose lock orders the change feed; `feed` names this database's feed."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    version = models.BigIntegerField(default=0)
    feed = models.UUIDField(default=uuid.uuid4, editable=False)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="change_cursor_is_single")]

    def __str__(self) -> str:
        return str(self.version)


def cursor(*, lock: bool = False) -> ChangeCursor:
    """Return the cursor's row, made where there is none yet; with `lock`, held to the commit.

    Two transactions that both find none end with the same row: the second's insert waits for the
    first's commit and is then ignored.
    """
    rows = ChangeCursor.objects.select_for_update() if lock else ChangeCursor.objects
    found = rows.filter(pk=1).first()
    if found is None:
        ChangeCursor.objects.bulk_create([ChangeCursor(pk=1)], ignore_conflicts=True)
        found = rows.get(pk=1)
    return found


def append(kind: str, payloads: Iterable[Mapping[str, Any]]) -> int:
    """Append one change per payload and return the version of the last.

    Raises `TransactionManagementError` outside a transaction: a version handed out without the
    row it describes would be a gap that no reader can tell from a loss.
    """
    if not connection.in_atomic_block:
        raise TransactionManagementError("a change is appended in the transaction that makes it")
    rows = list(payloads)
    position = cursor(lock=True)
    first = position.version + 1
    position.version += len(rows)
    Change.objects.bulk_create(
        Change(version=version, kind=kind, payload=dict(payload))
        for version, payload in enumerate(rows, start=first)
    )
    position.save(update_fields=["version"])
    return position.version
