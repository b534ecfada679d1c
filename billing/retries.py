"""Run transactions. Retry those that lost a race, and give up if a lock takes too long."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import IntegrityError, OperationalError, connection, transaction

T = TypeVar("T")

ATTEMPTS = 6
LOCK_SECONDS = 5

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOST_A_RACE = {"40001", "40P01"}
_TOOK_TOO_LONG = {"55P03", "57014"}
# Check and restrict violations in PostgreSQL, and a check and our own trigger in SQLite.
_BREAKS_A_RULE = {"23514", "23001", "SQLITE_CONSTRAINT_CHECK", "SQLITE_CONSTRAINT_TRIGGER"}


class DatabaseBusy(Exception):
    """A lock could not be obtained in time. Nothing was written. Try again later."""


def in_transaction(work: Callable[[], T]) -> T:
    """Run `work` in its own transaction. Retry if it lost a race with another writer.

    A race is a deadlock, a serialization failure, or a unique row that somebody else inserted
    first. Raises `DatabaseBusy` if a lock could not be obtained in time, and the database's own
    error after the last attempt.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with transaction.atomic():
                _bound_lock_waits()
                return work()
        except IntegrityError as error:
            if attempt == ATTEMPTS or breaks_a_rule(error):
                raise
        except OperationalError as error:
            state = getattr(error.__cause__, "sqlstate", None)
            if state in _TOOK_TOO_LONG or "database is locked" in str(error):
                raise DatabaseBusy from error
            if state not in _LOST_A_RACE or attempt == ATTEMPTS:
                raise
        time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
    raise AssertionError("unreachable")


def breaks_a_rule(error: Exception) -> bool:
    """Return whether a check or trigger rejected the row, so that a retry is pointless."""
    cause = error.__cause__
    codes = {getattr(cause, "sqlstate", None), getattr(cause, "sqlite_errorname", None)}
    return not codes.isdisjoint(_BREAKS_A_RULE)


def _bound_lock_waits() -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
