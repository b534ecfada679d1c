"""`python -m coding_tasks.agent_worker`: the process that runs agents in sandboxes."""

import asyncio
import signal
import sys

import structlog
from environs import EnvError
from temporalio.client import Client
from temporalio.envconfig import ClientConfig

from coding_tasks.agent_worker import worker
from coding_tasks.agent_worker.connecting import connect_or_stop
from coding_tasks.agent_worker.settings import Settings, from_environment


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    try:
        settings = from_environment()
    except EnvError as error:
        sys.stderr.write(f"agent worker: {error}\n")
        return 2
    if settings.log_format == "json":
        _log_json()
    asyncio.run(_run(settings))
    return 0


def _log_json() -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = await connect_or_stop(_connect, stop)
    if client is not None:
        await worker.run(client, settings, settings.sandbox.sandbox(), stop)


async def _connect() -> Client:
    return await Client.connect(**ClientConfig.load_client_connect_config())


if __name__ == "__main__":
    sys.exit(main())
