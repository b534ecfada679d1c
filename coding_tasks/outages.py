"""Outages of our own stores, and how to save a paid answer through one of them."""

import time
from collections.abc import Callable
from datetime import timedelta

import redis
import structlog
from django.db import InterfaceError, OperationalError, close_old_connections

from quota.gate import QuotaUnknown

log = structlog.get_logger(__name__)

DATABASE_OUT = (OperationalError, InterfaceError)
"""Raised by the database's driver while its server cannot be used."""
STORES_AWAY = (*DATABASE_OUT, QuotaUnknown, redis.ConnectionError, redis.TimeoutError)
"""Raised while one of our own stores cannot be used. The code is not at fault."""
PATIENCE = timedelta(minutes=10)
_FIRST_WAIT = 0.25  # seconds
_LONGEST_WAIT = 5.0
_LONGEST_LINE = 300  # characters


def in_one_line(error: BaseException) -> str:
    """Return an error in one line, for a log without its traceback."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_LINE]


def outlast_outage(action: Callable[[], None]) -> None:
    """Perform an idempotent action, and repeat it for `PATIENCE` while the database is down.

    Blocks the thread meanwhile. Raises what the last attempt raised.
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
