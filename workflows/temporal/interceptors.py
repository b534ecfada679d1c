"""What wraps every activity: fresh connections, heartbeats, and failures without quotations."""

import asyncio
import contextlib
import functools
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

import structlog
from django.db import close_old_connections
from temporalio import activity
from temporalio.exceptions import (
    ApplicationError,
    ApplicationErrorCategory,
    FailureError,
)
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from coding_tasks.outages import STORES_AWAY, in_one_line

log = structlog.get_logger(__name__)

_BEATS_PER_TIMEOUT = 4


class ActivityEnvironment(Interceptor):
    """Wraps every activity of a worker."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """See `temporalio.worker.Interceptor`."""
        return _FailuresInOurWords(_Heartbeats(_FreshConnections(next)))


class _FreshConnections(ActivityInboundInterceptor):
    """Drops broken and aged database connections as Django does around a request.

    Connections belong to threads. The activity's function runs on a thread of the worker's pool, so
    the function is wrapped: the interceptor itself runs on the event loop's thread.
    """

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        input.fn = _with_fresh_connections(input.fn)
        return await super().execute_activity(input)


def _with_fresh_connections(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*arguments: Any) -> Any:
        close_old_connections()
        try:
            return function(*arguments)
        finally:
            close_old_connections()

    return wrapped


class _FailuresInOurWords(ActivityInboundInterceptor):
    """Keeps error messages that we did not write out of histories.

    Drivers and providers quote what people wrote, and a history cannot be erased. So the history
    gets only the type of such an error, which retries need. The log gets the rest.
    """

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        try:
            return await super().execute_activity(input)
        except ApplicationError as error:
            if error.category is not ApplicationErrorCategory.BENIGN:
                _log_failure(error)
            raise error from None  # a cause would enter the history too
        except (FailureError, BrokenExecutor):
            raise  # after a BrokenExecutor the SDK has to end the worker
        except Exception as error:
            _log_failure(error)
            name = type(error).__name__
            raise ApplicationError(f"{name}: see the worker's log", type=name) from None


def _log_failure(error: Exception) -> None:
    """Log an expected failure in one line, and a programming error with its traceback."""
    info = activity.info()
    where = {"activity": info.activity_type, "attempt": info.attempt, "workflow": info.workflow_id}
    if isinstance(error, ApplicationError):
        cause = error.__cause__
        log.warning(
            "an activity failed",
            **where,
            error=f"{error.type}: {error.message}",
            cause=in_one_line(cause) if cause else None,
        )
    elif isinstance(error, STORES_AWAY):
        log.warning("an activity waits for a store", **where, error=in_one_line(error))
    else:
        log.error("an activity failed unexpectedly", **where, exc_info=error)


class _Heartbeats(ActivityInboundInterceptor):
    """Sends heartbeats for activities with a heartbeat timeout, even if they block their thread.

    A heartbeat only says that the worker process is alive. So Temporal notices a killed worker
    within the heartbeat timeout, but a hanging activity only when its attempt runs out of time.
    """

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        timeout = activity.info().heartbeat_timeout
        if timeout is None:
            return await super().execute_activity(input)
        beating = asyncio.create_task(_beat(timeout.total_seconds() / _BEATS_PER_TIMEOUT))
        try:
            return await super().execute_activity(input)
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating


async def _beat(interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        # For an activity on a thread, `heartbeat` waits for the event loop, so calling it on the
        # event loop itself would never return.
        await asyncio.to_thread(activity.heartbeat)
