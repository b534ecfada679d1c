"""Make concurrent calls, as the threads of a web server do."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from django.db import connection


def at_once(*calls: Callable[[], None]) -> None:
    """Make the calls at the same time, each on its own thread; raise what any of them raises."""
    barrier = Barrier(len(calls))

    def call_it(call: Callable[[], None]) -> None:
        barrier.wait(60)
        try:
            call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as executor:
        list(executor.map(call_it, calls))
