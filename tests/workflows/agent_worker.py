"""An agent worker in a thread of the test process, and as a process of its own."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Self

from django.conf import settings

from coding_tasks.agent_worker import worker
from coding_tasks.agent_worker.settings import Settings
from coding_tasks.sandbox.choice import Choice
from coding_tasks.sandbox.interface import Sandbox
from workflows.temporal.client import connect

_RUN_REQUEST = """\
cat > /tmp/prompt
if grep -q "^Now do this:" /tmp/prompt; then sed -i "1,/^Now do this:/d" /tmp/prompt; fi
. /tmp/prompt
"""
SHELL = {"shell": ("sh", "-c", _RUN_REQUEST)}
"""An agent that runs its request as shell code, so each test writes what its agent does."""

# As in `tests.workflows.worker_thread`: a test has few turns at the same time.
worker.Worker = partial(worker.Worker, max_concurrent_activity_task_polls=1)


def settings_of_worker() -> Settings:
    """Return settings that match Django's."""
    return Settings(
        exchange=Path(settings.AGENT_EXCHANGE_DIRECTORY),
        installations=Path(settings.AGENT_EXCHANGE_DIRECTORY) / "installations",
        most_turns=4,
        sandbox=Choice(uid=settings.SANDBOX_UID),
        task_queue=settings.TEMPORAL_TASK_QUEUE,
        commands=SHELL,
    )


class AgentWorkerThread:
    """Runs from `__enter__` to `__exit__`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._settings = settings_of_worker()
        self._thread.start()
        assert self._ready.wait(60), "the agent worker did not start"
        return self

    def __exit__(self, *_exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive(), "the agent worker did not stop"

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with worker.build(await connect(), self._settings, self._sandbox):
            self._ready.set()
            await self._stop.wait()


def agent_worker_process(log: Path) -> subprocess.Popen[bytes]:
    """Start `python -m coding_tasks.agent_worker` for the task queue of the test."""
    environment = {
        "PATH": os.environ["PATH"],
        "TEMPORAL_ADDRESS": settings.TEMPORAL_ADDRESS,
        "TEMPORAL_NAMESPACE": settings.TEMPORAL_NAMESPACE,
        "AGENT_EXCHANGE_DIRECTORY": str(settings.AGENT_EXCHANGE_DIRECTORY),
        "AGENT_COMMANDS": json.dumps(SHELL),
        "TEMPORAL_TASK_QUEUE": settings.TEMPORAL_TASK_QUEUE,
        "SANDBOX_UID": str(settings.SANDBOX_UID),
        # A process that only hangs still holds its polls, and so loses a turn with each.
        "AGENT_TURNS_AT_ONCE": "1",
    }
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "coding_tasks.agent_worker"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
