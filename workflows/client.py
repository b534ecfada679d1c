"""How the web process and Celery reach workflows: one Temporal client per process, for any thread.

A Temporal client belongs to one event loop and does not survive a fork, while our callers are
threads of a WSGI server and Celery's forked children. So each process runs one background loop,
made at the first call and forgotten in a forked child; the client in it connects lazily and
reconnects by itself. Every call is bounded by `DEADLINE`.
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

from workflows.mention import MentionWorkflow
from workflows.mention_types import (
    FollowUpReceived,
    MentionInput,
    RepositoryChoice,
    workflow_id,
)
from workflows.models import FollowUp, Mention

log = structlog.get_logger(__name__)

DEADLINE = timedelta(seconds=1.5)
"""How long a caller waits for Temporal: Slack wants its answer within 3 s."""
_LISTING = timedelta(seconds=10)
_MOST_LISTED = 1000

Answer = TypeVar("Answer")


class TemporalUnavailable(Exception):
    """Temporal did not answer, or not in time: whether anything happened is unknown. Try again."""


class WorkflowEnded(Exception):
    """The workflow is not running any more (or never was): a signal cannot reach it."""


async def connect(*, lazy: bool = False, retry: RetryConfig | None = None) -> Client:
    """Return a client for the configured Temporal server, of the running event loop.

    TLS, API key and gRPC metadata come from temporalio's own environment configuration; address
    and namespace from the settings. Raises `RuntimeError` when the server cannot be reached,
    unless `lazy`.
    """
    options: dict[str, Any] = dict(ClientConfig.load_client_connect_config())
    options |= {
        "target_host": settings.TEMPORAL_ADDRESS,
        "namespace": settings.TEMPORAL_NAMESPACE,
    }
    # A runtime of our own, for the default one may come from before a fork.
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
        # Retrying is our callers' business: their records say what is still to be done.
        opened = asyncio.run_coroutine_threadsafe(
            connect(lazy=True, retry=RetryConfig(max_retries=1)), self._loop
        )
        self.client = opened.result()

    def call(self, coroutine: Coroutine[Any, Any, Any], deadline: timedelta | None = None) -> Any:
        """Run a coroutine in the client's loop; raises `TemporalUnavailable` at the deadline."""
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
    """Start the mention's workflow, once: a workflow that already ran or runs counts as started.

    Marks the row `started` unless the workflow has meanwhile written more. Raises
    `TemporalUnavailable`; the row then stays `received`, for the sweep.
    """
    identifier = workflow_id(mention.team_id, mention.channel_id, mention.ts)
    # First the name, by which sweeps find a workflow that ends before it could be recorded.
    Mention.objects.filter(pk=mention.pk).update(workflow_id=identifier)
    mention.workflow_id = identifier
    request = MentionInput(mention_id=str(mention.pk), idle_seconds=60 * settings.TASK_IDLE_MINUTES)
    connection = _connected()
    try:
        connection.call(
            connection.client.start_workflow(
                MentionWorkflow.run,
                request,
                id=identifier,
                task_queue=settings.TEMPORAL_TASK_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                rpc_timeout=DEADLINE,
            )
        )
    except WorkflowAlreadyStartedError:
        pass
    except (RPCError, RuntimeError) as error:
        raise TemporalUnavailable(str(error)) from error
    Mention.objects.filter(pk=mention.pk, state=Mention.State.RECEIVED).update(
        state=Mention.State.STARTED
    )


def signal_follow_up(follow_up: FollowUp) -> None:
    """Tell the workflow of the thread's task that a further message was recorded.

    Telling twice is harmless. Raises `TemporalUnavailable` and `WorkflowEnded`; the row then stays
    `received`.
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


def signal_credits_gained(workflow_id: str) -> None:
    """Have a workflow whose run is paused look again whether there are credits.

    Raises `TemporalUnavailable` and `WorkflowEnded`.
    """
    _signal(workflow_id, "credits_gained")


def cancel(workflow_id: str) -> None:
    """Ask a workflow to end. It ends its mention and its task unless somebody already has.

    Raises `TemporalUnavailable` and `WorkflowEnded`.
    """
    _call(workflow_id, lambda handle: handle.cancel(rpc_timeout=DEADLINE))


def cancel_all(workflow_ids: Iterable[str]) -> None:
    """Cancel workflows whose work was stopped. One that does not hear ends at its next step."""
    for each in workflow_ids:
        try:
            cancel(each)
        except WorkflowEnded:
            pass
        except TemporalUnavailable as error:
            log.warning("a stopped workflow was not told", workflow=each, error=str(error))
            return


def terminated_workflows(since: datetime) -> list[str]:
    """Return the ids of the mentions' workflows that did not end by their own code after `since`.

    A workflow that an operator reset is among them, although it is running.
    Raises `TemporalUnavailable`.
    """
    connection = _connected()
    try:
        return connection.call(_terminated(connection.client, since), _LISTING)
    except (RPCError, RuntimeError) as error:
        raise TemporalUnavailable(str(error)) from error


def status_of(workflow_id: str) -> WorkflowExecutionStatus | None:
    """Return the status of a workflow's latest run; None when Temporal knows of none.

    Raises `TemporalUnavailable`.
    """
    try:
        found = _call(workflow_id, lambda handle: handle.describe(rpc_timeout=DEADLINE))
    except WorkflowEnded:
        return None
    return found.status


async def _terminated(client: Client, since: datetime) -> list[str]:
    query = (
        f"WorkflowType = 'MentionWorkflow' AND CloseTime > '{since.isoformat()}' "
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
        if _says_no_workflow(error):
            raise WorkflowEnded(workflow_id) from error
        raise TemporalUnavailable(str(error)) from error
    except RuntimeError as error:
        raise TemporalUnavailable(str(error)) from error
    return answer


def _says_no_workflow(error: RPCError) -> bool:
    """Return whether the workflow is missing, and not its namespace, which may come back."""
    details = error.grpc_status.details
    return error.status is RPCStatusCode.NOT_FOUND and not any(
        detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in details
    )
