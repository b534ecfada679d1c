"""The change feed: an append-only list that processes outside Django read with a cursor.

Versions are assigned in commit order: the cursor's row stays locked from `append` to the commit, so
a reader never sees version 812 before 811. Call `append` last in a transaction to hold that lock
only briefly.
"""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection, models
from django.db.models import Q
from django.db.transaction import TransactionManagementError


class Change(models.Model):
    """One row of the change feed: something that processes outside Django must know.

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
    """The single row whose lock orders the change feed. `feed` identifies this database's feed."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    version = models.BigIntegerField(default=0)
    feed = models.UUIDField(default=uuid.uuid4, editable=False)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="change_cursor_is_single")]

    def __str__(self) -> str:
        return str(self.version)


def cursor(*, lock: bool = False) -> ChangeCursor:
    """Return the cursor's row, creating it if needed. With `lock`, lock it until the commit.

    If two transactions create the row at once, both end with the same row: the second insert waits
    for the first commit and is then ignored.
    """
    rows = ChangeCursor.objects.select_for_update() if lock else ChangeCursor.objects
    found = rows.filter(pk=1).first()
    if found is None:
        ChangeCursor.objects.bulk_create([ChangeCursor(pk=1)], ignore_conflicts=True)
        found = rows.get(pk=1)
    return found


def append(kind: str, payloads: Iterable[Mapping[str, Any]]) -> int:
    """Append one change per payload and return the version of the last.

    Raises `TransactionManagementError` outside a transaction: a version without its row would be a
    gap that looks like a lost change.
    """
    if not connection.in_atomic_block:
        raise TransactionManagementError("append a change in the transaction that makes it")
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
