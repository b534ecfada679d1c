"""A worker's database that goes away and comes back. The test's own thread can still use it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import OperationalError
from django.db.backends.signals import connection_created

from tests.conftest import wait_until

MINTING = 'INSERT INTO "projects_oauthaccesstoken"'
"""The statement that begins a run's token, before any model is called."""


class Outage:
    """Switches the database off and on, at once or at a given statement."""

    def __init__(self) -> None:
        self._is_out = False
        self._at = ""
        self.failures = 0

    def begin(self) -> None:
        """Go down now."""
        self._is_out = True

    def begin_at(self, words: str) -> None:
        """Go down at the next statement that contains the words."""
        self._at = words

    def end(self) -> None:
        """Come back."""
        self._is_out, self._at = False, ""

    def wait_until_noticed(self, failures: int = 1) -> None:
        """Wait until this many more statements have failed."""
        enough = self.failures + failures
        wait_until(lambda: self.failures >= enough, what="statements that fail")

    def fail_if_out(self, execute, sql, *rest):
        """See `django.db.connection.execute_wrapper`."""
        if threading.current_thread() is not threading.main_thread():
            self._is_out = self._is_out or bool(self._at and self._at in sql)
            if self._is_out:
                self.failures += 1
                raise OperationalError("the database is out")
        return execute(sql, *rest)


@contextmanager
def database_outage() -> Iterator[Outage]:
    """Apply the outage to every connection that is opened in the block."""
    outage = Outage()

    def connected(connection, **_kwargs) -> None:
        connection.execute_wrappers.append(outage.fail_if_out)

    connection_created.connect(connected)
    try:
        yield outage
    finally:
        connection_created.disconnect(connected)
        outage.end()
