"""Going on through an outage of the database with what must not be lost: a paid answer."""

import time
from collections.abc import Callable
from datetime import timedelta

import structlog
from django.db import InterfaceError, OperationalError, close_old_connections

log = structlog.get_logger(__name__)

DATABASE_OUT = (OperationalError, InterfaceError)
"""What the database's driver raises while its server cannot be used."""
PATIENCE = timedelta(minutes=10)
_FIRST_WAIT = 0.25  # seconds
_LONGEST_WAIT = 5.0


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
            log.warning("waiting for the database", error=str(error)[:200])
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)
        close_old_connections()
