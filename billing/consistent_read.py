"""Read several things as they were at one instant."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection


@contextmanager
def consistent_read() -> Iterator[None]:
    """Read the database as it is at one instant, without blocking writers.

    Without this, events that are booked while the ledger is read would look like differences. Has
    no effect within a transaction.
    """
    if connection.in_atomic_block:
        yield
        return
    on_postgresql = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        cursor.execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if on_postgresql else "BEGIN DEFERRED"
        )
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")
