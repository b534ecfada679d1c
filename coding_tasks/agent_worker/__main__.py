"""`python -m coding_tasks.agent_worker`: the process that runs agents in sandboxes."""

import asyncio
import signal
import sys

import structlog
from environs import EnvError
from temporalio.client import Client
from temporalio.envconfig import ClientConfig

from coding_tasks.agent_worker import worker
from coding_tasks.agent_worker.settings import Settings, from_environment

log = structlog.get_logger(__name__)

RETRY = 2.0
"""Seconds between attempts to reach a Temporal server that is down."""


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    try:
        settings = from_environment()
    except EnvError as error:
        sys.stderr.write(f"agent worker: {error}\n")
        return 2
    asyncio.run(_run(settings))
    return 0


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = await _connect(stop)
    if client is not None:
        await worker.run(client, settings, settings.sandbox.sandbox(), stop)


async def _connect(stop: asyncio.Event) -> Client | None:
    """Return a client once Temporal is up, or None if `stop` is set first."""
    while not stop.is_set():
        try:
            return await Client.connect(**ClientConfig.load_client_connect_config())
        except RuntimeError as error:
            log.warning("waiting for Temporal", error=str(error)[:200])
            try:
                await asyncio.wait_for(stop.wait(), RETRY)
            except TimeoutError:
                continue
    return None


if __name__ == "__main__":
    sys.exit(main())
