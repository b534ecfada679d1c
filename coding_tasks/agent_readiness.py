"""The agent workers that run now, and what each can do."""

from pathlib import Path

from django.conf import settings

from coding_tasks.agent_worker import readiness
from coding_tasks.agent_worker.exchange import Exchange
from coding_tasks.agent_worker.readiness import Readiness


def agent_workers() -> list[Readiness]:
    """Return what the agent workers that reported in the last minute can run, by name."""
    return readiness.workers(Exchange(Path(settings.AGENT_EXCHANGE_DIRECTORY)))
