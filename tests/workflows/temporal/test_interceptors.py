"""What wraps every activity: heartbeats, fresh connections, and failures without quotations."""

import asyncio
import logging
import threading
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import Worker

from config.outage_lines import tone_down
from workflows.temporal.client import connect
from workflows.temporal.interceptors import ActivityEnvironment

HEARTBEAT_TIMEOUT = 4

_released = threading.Event()


@activity.defn
def block() -> str:
    """Block the thread, as a slow call does."""
    return "done" if _released.wait(60) else "never released"


@activity.defn
def use_database() -> str:
    """Return "stale" if the thread had an open connection, else "fresh"; leave one open."""
    had = "stale" if connection.connection else "fresh"
    connection.ensure_connection()
    return had


@activity.defn
def quote() -> str:
    """Fail like a driver or a provider that quotes its input."""
    raise LookupError("somebody-wrote-this") from ValueError("and-this")


@activity.defn
def quote_below() -> str:
    """Fail in our own words, with a cause that quotes."""
    try:
        raise LookupError("somebody-wrote-this")
    except LookupError as error:
        raise ApplicationError("in our words", type="Ours") from error


@activity.defn
def miss_a_store() -> str:
    """Fail as an activity does while the database is down."""
    raise OperationalError("the connection was closed")


@activity.defn
def leave_to_others() -> str:
    """Fail because another process is doing it."""
    raise ApplicationError("still", type="Owed", category=ApplicationErrorCategory.BENIGN)


@workflow.defn(sandboxed=False)
class Once:
    """Runs one activity, once."""

    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(
            name,
            start_to_close_timeout=timedelta(seconds=20),
            heartbeat_timeout=timedelta(seconds=HEARTBEAT_TIMEOUT),
            retry_policy=RetryPolicy(maximum_attempts=1),
            result_type=str,
        )


async def beats_twice(run: WorkflowHandle) -> None:
    """Wait until the server has received two heartbeats from a workflow's activity."""
    beats: set[int] = set()
    async with asyncio.timeout(60):
        while len(beats) < 2:
            pending = (await run.describe()).raw_description.pending_activities
            beats |= {each.last_heartbeat_time.ToNanoseconds() for each in pending} - {0}
            await asyncio.sleep(0.02)


def worker(client: Client, queue: str, executor: ThreadPoolExecutor, threads: int) -> Worker:
    return Worker(
        client,
        task_queue=queue,
        workflows=[Once],
        activities=[block, use_database, quote, quote_below, miss_a_store, leave_to_others],
        activity_executor=executor,
        max_concurrent_activities=threads,
        interceptors=[ActivityEnvironment()],
        max_heartbeat_throttle_interval=timedelta(seconds=0.1),
    )


def execute(
    *names: str, threads: int, meanwhile: Callable[[WorkflowHandle], Awaitable[None]] | None = None
) -> list[str]:
    """Run the activities on a worker with this many threads; return their results."""

    async def main() -> list[str]:
        client = await connect()
        queue = str(uuid.uuid4())
        with ThreadPoolExecutor(threads) as executor:
            async with worker(client, queue, executor, threads):
                runs = [
                    await client.start_workflow(Once.run, name, id=f"{queue}-{n}", task_queue=queue)
                    for n, name in enumerate(names)
                ]
                if meanwhile:
                    await asyncio.gather(*map(meanwhile, runs))
                    _released.set()
                return await asyncio.gather(*(run.result() for run in runs))

    return asyncio.run(main())


@pytest.mark.usefixtures("temporal_address")
def test_blocking_activities_send_heartbeats_and_do_not_delay_each_other():
    assert execute("block", "block", "block", threads=3, meanwhile=beats_twice) == ["done"] * 3


@pytest.mark.usefixtures("temporal_address", "transactional_db")
def test_no_activity_meets_a_connection_that_has_aged_on_its_thread(monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    assert execute("use_database", "use_database", threads=1) == ["fresh", "fresh"]


@pytest.mark.usefixtures("temporal_address", "transactional_db")
@pytest.mark.parametrize(("name", "kind"), [("quote", "LookupError"), ("quote_below", "Ours")])
def test_histories_hold_only_our_own_words_on_failures_and_the_log_all(name, kind, caplog):
    with pytest.raises(WorkflowFailureError) as failed:
        execute(name, threads=1)
    recorded = failed.value.cause.cause
    assert recorded.type == kind
    assert recorded.cause is None
    assert "somebody-wrote-this" not in str(recorded.failure)
    ours = [
        each.getMessage()
        for each in caplog.records
        if each.name == "workflows.temporal.interceptors"
    ]
    assert len(ours) == 1
    assert "somebody-wrote-this" in ours[0]


def told(name: str, caplog) -> list[logging.LogRecord]:
    """Let the activity fail; return the log records that the handler keeps."""
    with pytest.raises(WorkflowFailureError):
        execute(name, threads=1)
    return [each for each in caplog.records if "activity" in each.getMessage() and tone_down(each)]


@pytest.mark.usefixtures("temporal_address", "transactional_db")
@pytest.mark.parametrize(
    ("name", "level", "has_traceback"),
    [
        ("miss_a_store", "WARNING", False),
        ("quote_below", "WARNING", False),
        ("quote", "ERROR", True),
    ],
)
def test_a_failure_is_logged_once_and_only_programming_errors_with_a_traceback(
    name, level, has_traceback, caplog
):
    [line] = told(name, caplog)
    assert line.levelname == level
    assert ("exc_info" in line.msg) is has_traceback


@pytest.mark.usefixtures("temporal_address", "transactional_db")
def test_a_notice_with_another_sender_is_not_logged(caplog):
    assert told("leave_to_others", caplog) == []


@pytest.mark.usefixtures("temporal_address")
def test_a_worker_whose_threads_cannot_start_ends():
    def refuse() -> None:
        raise LookupError("no thread of this pool starts")

    async def main() -> None:
        client = await connect()
        queue = str(uuid.uuid4())
        await client.start_workflow(Once.run, "block", id=queue, task_queue=queue)
        with ThreadPoolExecutor(1, initializer=refuse) as executor:
            async with asyncio.timeout(60):
                await worker(client, queue, executor, threads=1).run()

    with pytest.raises(RuntimeError, match="Activity worker failed"):
        asyncio.run(main())
