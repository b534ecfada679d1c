"""Hints to Celery that there is something to do now. Rows in the database say what it is.

A sweep finds the same rows within seconds, so a hint that cannot be given is not an error.
"""

import structlog
from celery import current_app

log = structlog.get_logger(__name__)

# Celery's defaults wait seconds for a broker that is down and for ever for one that hangs; the
# caller is a webhook that Slack gives three seconds.
_IMPATIENT = {
    "socket_connect_timeout": 0.5,
    "socket_timeout": 0.5,
    "max_retries": 0,
    "interval_start": 0,
    "interval_step": 0,
}


def run_soon(task: str, *arguments: str) -> None:
    """Ask a worker to run the task soon. Takes at most about a second and never raises."""
    try:
        with current_app.connection_for_write(transport_options=_IMPATIENT) as connection:
            current_app.send_task(task, args=arguments, connection=connection, retry=False)
    except Exception as error:  # whatever a broker can do wrong, the sweep makes good
        log.warning("no broker to hasten a task", task=task, error=type(error).__name__)
