"""Start, signal and cancel workflows from the web process and from Celery.

A Temporal client belongs to one event loop and does not survive a fork, but our callers are threads
of a WSGI server and Celery's forked children. So each process runs one event loop in the
background, created at the first call and forgotten in a forked child. Its client connects lazily
and reconnects by itself. Calls have the time limit `DEADLINE`.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import datetime, timedelta
from typing import Any, TypeVar

import structlog
from django.conf import settings
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RetryConfig, RPCError, RPCStatusCode

from coding_tasks import api_tasks
from coding_tasks.models import CodingTask
from workflows.api_task import ApiTaskWorkflow
from workflows.api_task_types import ApiTaskInput
from workflows.mention import MentionWorkflow
from workflows.mention_types import (
    ASKED_FOR_CREDITS,
    HANDED_BACK,
    FollowUpReceived,
    MentionInput,
    RepositoryChoice,
    workflow_id,
)
from workflows.models import FollowUp, Mention

log = structlog.get_logger(__name__)

DEADLINE = timedelta(seconds=1.5)
"""How long a caller waits for Temporal. Slack wants its answer within 3 s."""
_LISTING = timedelta(seconds=10)
_MOST_LISTED = 1000
_RECEIVED = Mention.State.RECEIVED
_STARTS_AGAIN = (HANDED_BACK, ASKED_FOR_CREDITS)

Answer = TypeVar("Answer")


class TemporalUnavailable(Exception):
    """Temporal did not answer in time. Whether anything happened is unknown, so try again."""


class WorkflowEnded(Exception):
    """The workflow is not running (any more), so a signal cannot reach it."""


async def connect(*, lazy: bool = False, retry: RetryConfig | None = None) -> Client:
    """Return a client for the configured Temporal server, on the running event loop.

    Address and namespace come from the settings, TLS, API key and gRPC metadata from temporalio's
    own environment configuration. Raises `RuntimeError` if the server cannot be reached, unless
    `lazy`.
    """
    options: dict[str, Any] = dict(ClientConfig.load_client_connect_config())
    options |= {
        "target_host": settings.TEMPORAL_ADDRESS,
        "namespace": settings.TEMPORAL_NAMESPACE,
    }
    # The default runtime may have been created before a fork.
    return await Client.connect(
        **options,
        lazy=lazy,
        retry_config=retry,
        connect_timeout=timedelta(seconds=5),
        runtime=Runtime(telemetry=TelemetryConfig()),
    )


class _Connection:
    """The process's event loop and the client that lives in it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="temporal", daemon=True).start()
        # Callers retry: their rows say what is left to do.
        opened = asyncio.run_coroutine_threadsafe(
            connect(lazy=True, retry=RetryConfig(max_retries=1)), self._loop
        )
        self.client = opened.result()

    def call(
        self, coroutine: Coroutine[Any, Any, Answer], deadline: timedelta | None = None
    ) -> Answer:
        """Run a coroutine in the client's loop. Raise `TemporalUnavailable` at the deadline."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result((deadline or DEADLINE).total_seconds())
        except FutureTimeout:
            future.cancel()
            raise TemporalUnavailable("no answer in time") from None


_lock = threading.Lock()
_connection: _Connection | None = None


def _connected() -> _Connection:
    global _connection  # noqa: PLW0603 - one per process is the point
    with _lock:
        if _connection is None:
            _connection = _Connection()
        return _connection


def _forget() -> None:
    global _lock, _connection
    _lock, _connection = threading.Lock(), None


os.register_at_fork(after_in_child=_forget)


def start_mention(mention: Mention) -> None:
    """Start the mention's workflow, unless it was started before, and mark the row `started`.

    A workflow that has ended starts again only if its mention was forwarded to a task that is gone,
    or was refused for lack of credits that it has now. Raises `TemporalUnavailable`, also if such a
    workflow has not ended yet. The row then stays `received`, for the sweep.
    """
    identifier = workflow_id(mention.team_id, mention.channel_id, mention.ts)
    # Sweeps find a workflow by this id, even if it ends before the row is marked `started`.
    Mention.objects.filter(pk=mention.pk).update(workflow_id=identifier)
    mention.workflow_id = identifier
    request = MentionInput(mention_id=str(mention.pk), idle_seconds=60 * settings.TASK_IDLE_MINUTES)
    if not _start(identifier, request, WorkflowIDReusePolicy.REJECT_DUPLICATE):
        status = status_of(identifier)
        again = Mention.objects.filter(pk=mention.pk, state=_RECEIVED, outcome__in=_STARTS_AGAIN)
        if again.exists():
            if status is WorkflowExecutionStatus.RUNNING:
                raise TemporalUnavailable("the mention's earlier workflow has not ended yet")
            _start(identifier, request, WorkflowIDReusePolicy.ALLOW_DUPLICATE)
    Mention.objects.filter(pk=mention.pk, state=_RECEIVED).update(
        state=Mention.State.STARTED, outcome=""
    )


def _start(identifier: str, request: MentionInput, reuse: WorkflowIDReusePolicy) -> bool:
    """Start a workflow; return False if there is one already. Raises `TemporalUnavailable`."""
    connection = _connected()
    try:
        connection.call(
            connection.client.start_workflow(
                MentionWorkflow.run,
                request,
                id=identifier,
                task_queue=settings.TEMPORAL_TASK_QUEUE,
                id_reuse_policy=reuse,
                rpc_timeout=DEADLINE,
            )
        )
    except WorkflowAlreadyStartedError:
        return False
    except (RPCError, RuntimeError) as error:
        raise TemporalUnavailable(str(error)) from error
    return True


def start_api_task(task: CodingTask) -> None:
    """Start the task's workflow, or tell the running one that there is a further run.

    A needless call does no harm, because the rows say what there is to do. Raises
    `TemporalUnavailable`; the runs then stay unannounced, for the sweep.
    """
    announced = api_tasks.unannounced_runs(task)
    connection = _connected()
    try:
        connection.call(
            connection.client.start_workflow(
                ApiTaskWorkflow.run,
                ApiTaskInput(str(task.pk)),
                id=task.workflow_id,
                task_queue=settings.TEMPORAL_TASK_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                start_signal="run_added",
                rpc_timeout=DEADLINE,
            )
        )
    except (RPCError, RuntimeError) as error:
        raise TemporalUnavailable(str(error)) from error
    api_tasks.mark_announced(announced)


def signal_follow_up(follow_up: FollowUp) -> None:
    """Signal to the workflow of the thread's task that a further message was recorded.

    A second signal does no harm. Raises `TemporalUnavailable` and `WorkflowEnded`. The row then
    stays `received`.
    """
    _signal(follow_up.workflow_id, "follow_up", FollowUpReceived(str(follow_up.pk)))
    # Unless the workflow has already handled the message.
    FollowUp.objects.filter(pk=follow_up.pk, state=FollowUp.State.RECEIVED).update(
        state=FollowUp.State.SIGNALLED
    )


def signal_repository_choice(workflow_id: str, choice: RepositoryChoice) -> None:
    """Give a mention's workflow the repository chosen in its picker; the first choice counts.

    Raises `TemporalUnavailable` and `WorkflowEnded` (the picker has expired).
    """
    _signal(workflow_id, "repository_chosen", choice)


def signal_quote_answered(workflow_id: str) -> None:
    """Make a mention's workflow look for the answer to the question about a run's cost.

    Raises `TemporalUnavailable` and `WorkflowEnded`.
    """
    _signal(workflow_id, "quote_answered")


def signal_credits_gained(workflow_id: str) -> None:
    """Make the workflow of a paused run check again whether there are credits.

    Raises `TemporalUnavailable` and `WorkflowEnded`.
    """
    _signal(workflow_id, "credits_gained")


def cancel(workflow_id: str) -> None:
    """Cancel a workflow, which then ends its mention and its task, unless they have ended.

    Raises `TemporalUnavailable` and `WorkflowEnded`.
    """
    _call(workflow_id, lambda handle: handle.cancel(rpc_timeout=DEADLINE))


def cancel_all(workflow_ids: Iterable[str]) -> None:
    """Cancel workflows whose work was stopped. One that we can't reach ends at its next step."""
    for each in workflow_ids:
        try:
            cancel(each)
        except WorkflowEnded:
            pass
        except TemporalUnavailable as error:
            log.warning(
                "a stopped workflow could not be cancelled", workflow=each, error=str(error)
            )
            return


def terminated_workflows(since: datetime) -> list[str]:
    """Return the ids of workflows that were terminated, timed out or failed after `since`.

    A workflow that an operator reset is included, although it is running. Raises
    `TemporalUnavailable`.
    """
    connection = _connected()
    try:
        return connection.call(_terminated(connection.client, since), _LISTING)
    except (RPCError, RuntimeError) as error:
        raise TemporalUnavailable(str(error)) from error


def status_of(workflow_id: str) -> WorkflowExecutionStatus | None:
    """Return the status of a workflow's latest run, or None if Temporal knows of none.

    Raises `TemporalUnavailable`.
    """
    try:
        found = _call(workflow_id, lambda handle: handle.describe(rpc_timeout=DEADLINE))
    except WorkflowEnded:
        return None
    return found.status


async def _terminated(client: Client, since: datetime) -> list[str]:
    query = (
        "WorkflowType IN ('MentionWorkflow', 'ApiTaskWorkflow') "
        f"AND CloseTime > '{since.isoformat()}' "
        "AND ExecutionStatus IN ('Terminated', 'TimedOut', 'Failed')"
    )
    listed = client.list_workflows(query, limit=_MOST_LISTED, rpc_timeout=_LISTING)
    return [each.id async for each in listed]


def _signal(workflow_id: str, signal: str, *arguments: FollowUpReceived | RepositoryChoice) -> None:
    _call(
        workflow_id,
        lambda handle: handle.signal(signal, args=arguments, rpc_timeout=DEADLINE),
    )


def _call(
    workflow_id: str, operation: Callable[[WorkflowHandle[Any, Any]], Coroutine[Any, Any, Answer]]
) -> Answer:
    """Return the answer to an operation on a workflow.

    Raises `TemporalUnavailable` and `WorkflowEnded`.
    """
    connection = _connected()
    handle = connection.client.get_workflow_handle(workflow_id)
    try:
        answer: Answer = connection.call(operation(handle))
    except RPCError as error:
        if _is_missing_workflow(error):
            raise WorkflowEnded(workflow_id) from error
        raise TemporalUnavailable(str(error)) from error
    except RuntimeError as error:
        raise TemporalUnavailable(str(error)) from error
    return answer


def _is_missing_workflow(error: RPCError) -> bool:
    """Return whether the workflow is missing, rather than its namespace, which may come back."""
    details = error.grpc_status.details
    return error.status is RPCStatusCode.NOT_FOUND and not any(
        detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in details
    )
