"""The change feed: an append-only list that processes outside Django follow by a cursor.

Versions are assigned in commit order: the cursor's row stays locked from `append` to the commit,
so a reader never sees version 812 and learns of 811 later. Call `append` last in a transaction, to
hold that lock briefly.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction

from projects.models import Change, ChangeCursor


def append(kind: str, payloads: Iterable[Mapping[str, Any]]) -> int:
    """Append one change per payload and return the version of the last.

    Raises `TransactionManagementError` outside a transaction: a version handed out without the
    row it describes would be a gap that no reader can tell from a loss.
    """
    rows = list(payloads)
    cursor = ChangeCursor.objects.select_for_update().get(pk=1)
    first = cursor.version + 1
    cursor.version += len(rows)
    Change.objects.bulk_create(
        Change(version=version, kind=kind, payload=dict(payload))
        for version, payload in enumerate(rows, start=first)
    )
    cursor.save(update_fields=["version"])
    return cursor.version


def revoke_credential(sha256: str) -> None:
    """Tell followers that the credential with this SHA-256 is no longer valid."""
    with transaction.atomic():
        append(Change.Kind.CREDENTIAL_REVOKED, [{"sha256": sha256}])
