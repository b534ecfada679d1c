"""Going on through an outage of the database with what must not be lost: a paid answer."""

import time
from collections.abc import Callable
from datetime import timedelta

import redis
import structlog
from django.db import InterfaceError, OperationalError, close_old_connections

from quota.gate import QuotaUnknown

log = structlog.get_logger(__name__)

DATABASE_OUT = (OperationalError, InterfaceError)
"""What the database's driver raises while its server cannot be used."""
STORES_AWAY = (*DATABASE_OUT, QuotaUnknown, redis.ConnectionError, redis.TimeoutError)
"""What is raised while one of our own stores cannot be used: nobody has to mend anything."""
PATIENCE = timedelta(minutes=10)
_FIRST_WAIT = 0.25  # seconds
_LONGEST_WAIT = 5.0
_LONGEST_LINE = 300  # characters


def in_one_line(error: BaseException) -> str:
    """Return an error in one line, for a log without its traceback."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_LINE]


def through_an_outage(action: Callable[[], None]) -> None:
    """Do what may be done twice; while the database is out, again and again for `PATIENCE`.

    Blocks its thread meanwhile. Raises what the last attempt raised.
    """
    deadline = time.monotonic() + PATIENCE.total_seconds()
    wait = _FIRST_WAIT
    while True:
        try:
            return action()
        except DATABASE_OUT as error:
            if time.monotonic() + wait > deadline:
                raise
            log.warning("waiting for the database", error=in_one_line(error))
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)
        close_old_connections()
