"""The Temporal worker that runs agents."""

import asyncio
from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.worker import Worker

from coding_tasks.agent_worker import readiness
from coding_tasks.agent_worker.exchange import Exchange
from coding_tasks.agent_worker.job import QUEUE_SUFFIX
from coding_tasks.agent_worker.settings import Settings
from coding_tasks.agent_worker.turns import TurnActivities
from coding_tasks.agents.registry import registry
from coding_tasks.sandbox.interface import Sandbox

log = structlog.get_logger(__name__)

GRACE = timedelta(seconds=3)
"""How long a stopping worker lets turns finish. Others are repeated by another worker."""


def build(client: Client, settings: Settings, sandbox: Sandbox) -> Worker:
    """Return the worker of this machine."""
    turns = TurnActivities(
        sandbox, registry(settings.commands), Exchange(settings.exchange), settings.installations
    )
    return Worker(
        client,
        task_queue=settings.task_queue + QUEUE_SUFFIX,
        activities=[turns.run_turn],
        max_concurrent_activities=settings.most_turns,
        graceful_shutdown_timeout=GRACE,
        # By default the SDK holds heartbeats back for most of their timeout, which delays a stop.
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        default_heartbeat_throttle_interval=timedelta(seconds=1),
    )


async def run(client: Client, settings: Settings, sandbox: Sandbox, stop: asyncio.Event) -> None:
    """Run turns until `stop` is set, then end those that are left.

    A machine without a sandbox works too: it says for each turn that it can't run it, which is
    better than a thread that hears nothing.
    """
    if reason := await asyncio.to_thread(sandbox.why_missing):
        log.error("agents cannot run here", reason=reason)
    async with build(client, settings, sandbox):
        log.info("agent worker ready", task_queue=settings.task_queue + QUEUE_SUFFIX)
        reporting = asyncio.create_task(
            readiness.report(
                Exchange(settings.exchange),
                sandbox,
                registry(settings.commands),
                settings.installations,
            )
        )
        await stop.wait()
        reporting.cancel()
        await asyncio.wait([reporting])
