"""A worker process that kills itself at given points and is started again.

Run as a program with a JSON argument: `task_queue`, and `deaths` such as "before create_task" (an
activity) or "after workflows.notices._send" (a function). It forks one life after the other, prints
a line at each death, and after the last death lives on.
"""

import asyncio
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any


@contextmanager
def worker_process(
    task_queue: str, environment: dict[str, str], log: Path, deaths: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Run the program below until the block ends. It prints a line for each death."""
    arguments = json.dumps({"task_queue": task_queue, "deaths": list(deaths)})
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()
            process.stdout.close()


def main(task_queue: str, deaths: list[str]) -> None:
    """Fork a new worker after each death. The imports are done once."""
    import django

    django.setup()

    from django.conf import settings
    from temporalio.worker import _worker

    from workflows.temporal import worker

    _worker.load_default_build_id()  # hashes all loaded code; the forked workers remember it
    settings.TEMPORAL_TASK_QUEUE = task_queue
    lives: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: os.kill(lives[-1], signal.SIGTERM))
    for death in [*deaths, None]:
        lives.append(os.fork())
        if lives[-1] == 0:
            asyncio.run(_live(worker, death))
            os._exit(0)
        _, status = os.waitpid(lives[-1], 0)
        if not os.WIFSIGNALED(status):
            return
        sys.stdout.write(f"{death}\n")
        sys.stdout.flush()


async def _live(worker: Any, death: str | None) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    _arm(death)
    await worker.run(stop, worker.configured_tools())


def _arm(death: str | None) -> None:
    from workflows import notices
    from workflows.temporal import interceptors

    notices.LEASE = timedelta(seconds=2)  # the life that held it is over
    when, _, name = (death or "").partition(" ")
    module, _, function = name.rpartition(".")
    if module:
        victim = importlib.import_module(module)
        setattr(victim, function, _lethal(getattr(victim, function), when, lambda: True))
    elif name:
        with_fresh_connections = interceptors._with_fresh_connections

        def lethal(activity: Callable[..., Any]) -> Callable[..., Any]:
            return _lethal(with_fresh_connections(activity), when, lambda: _is_running(name))

        interceptors._with_fresh_connections = lethal


def _is_running(name: str) -> bool:
    from temporalio import activity

    return activity.info().activity_type == name


def _lethal(
    function: Callable[..., Any], when: str, is_time: Callable[[], bool]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        if when == "before" and is_time():
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if when == "after" and is_time():
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
