"""A bare workflow: `python -m benchmarks.load.bare_temporal ADDRESS COUNT ACTIVITIES`.

Starts COUNT workflows at once. Each runs ACTIVITIES activities that do nothing, one after another.
Prints how many workflows end in a second.
"""

import asyncio
import os
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

_QUEUE = "bare"
_AT_ONCE = 20


@activity.defn
def nothing() -> None:
    """Do nothing, in a thread like our activities."""


@workflow.defn
class Bare:
    """Runs activities one after another."""

    @workflow.run
    async def run(self, activities: int) -> None:
        """Run that many activities."""
        for _ in range(activities):
            await workflow.execute_activity(nothing, start_to_close_timeout=timedelta(seconds=10))


async def measure(address: str, count: int, activities: int) -> float:
    """Return how many workflows end in a second."""
    client = await Client.connect(address)
    run = uuid.uuid4().hex
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        worker = Worker(
            client,
            task_queue=_QUEUE,
            workflows=[Bare],
            activities=[nothing],
            activity_executor=threads,
            max_concurrent_activities=_AT_ONCE,
        )
        async with worker:
            await client.execute_workflow(Bare.run, 1, id=f"{run}-first", task_queue=_QUEUE)
            began = time.perf_counter()
            await asyncio.gather(
                *(
                    client.execute_workflow(
                        Bare.run, activities, id=f"{run}-{number}", task_queue=_QUEUE
                    )
                    for number in range(count)
                )
            )
            return count / (time.perf_counter() - began)


if __name__ == "__main__":
    print(asyncio.run(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))), flush=True)
    os._exit(0)  # temporalio's threads sometimes abort the interpreter as it ends
