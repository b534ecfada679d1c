"""Hints to Celery that there is work to do now. Rows in the database say what the work is.

A sweep finds the same rows within seconds, so a lost hint is not an error.
"""

from functools import lru_cache

import structlog
from celery import current_app
from kombu.pools import ProducerPool

log = structlog.get_logger(__name__)

# By default Celery waits seconds for a broker that is down, and forever for one that hangs. The
# caller may be a webhook, for which Slack allows three seconds.
_IMPATIENT = {
    "socket_connect_timeout": 0.5,
    "socket_timeout": 0.5,
    "max_retries": 0,
    "interval_start": 0,
    "interval_step": 0,
}
_AT_ONCE = 16
"""Connections of this process: one for each thread of a web process."""


def run_soon(task: str, *arguments: str) -> None:
    """Ask a worker to run the task soon. Takes about a second at most and never raises."""
    try:
        with _producers(current_app.conf.broker_url).acquire(block=True) as producer:
            current_app.send_task(task, args=arguments, producer=producer, retry=False)
    except Exception as error:  # the sweep will do the work
        log.warning("no broker: a task is left to its sweep", task=task, error=type(error).__name__)


@lru_cache(maxsize=2)
def _producers(broker_url: str) -> ProducerPool:
    """Return connections that are kept open: opening one costs six times as much as a hint."""
    connection = current_app.connection_for_write(broker_url, transport_options=_IMPATIENT)
    return ProducerPool(connection.Pool(limit=_AT_ONCE), limit=_AT_ONCE)
