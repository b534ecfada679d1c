"""A Temporal worker in a thread of the test process, on a task queue of its own."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self

from temporalio.client import Client
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from workflows.temporal import worker
from workflows.temporal.client import connect
from workflows.temporal.worker import Tools

_prepare = SandboxedWorkflowRunner.prepare_workflow
_prepared: set[type] = set()


def _prepare_once(runner: SandboxedWorkflowRunner, definition: Any) -> None:
    """Validate a workflow for the first worker of this process; that imports all its modules."""
    if definition.cls not in _prepared:
        _prepare(runner, definition)
        _prepared.add(definition.cls)


SandboxedWorkflowRunner.prepare_workflow = _prepare_once

# The server begins and ends each poll of each worker. A test has few tasks at the same time.
worker.Worker = partial(
    worker.Worker, max_concurrent_workflow_task_polls=2, max_concurrent_activity_task_polls=1
)


class WorkerThread:
    """Runs from `__enter__` to `__exit__`, and stops like the command."""

    def __init__(self, task_queue: str, tools: Tools | None = None) -> None:
        self.task_queue = task_queue
        self._tools = tools or worker.configured_tools()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60), "the worker did not start"
        return self

    def __exit__(self, *_exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive(), "the worker did not stop"

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        client: Client = await connect()
        threads = worker.ACTIVITIES + worker.LOCAL_ACTIVITIES
        with ThreadPoolExecutor(threads) as executor:
            async with worker.build(client, executor, self._tools, self.task_queue):
                self._ready.set()
                await self._stop.wait()
