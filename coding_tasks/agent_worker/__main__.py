"""`python -m coding_tasks.agent_worker`: the process that runs agents in sandboxes."""

import asyncio
import signal
import sys

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
    asyncio.run(_run(settings))
    return 0


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
