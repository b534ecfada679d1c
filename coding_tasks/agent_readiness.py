"""The agent workers that are running, and what each can run."""

from pathlib import Path

from django.conf import settings

from coding_tasks.agent_worker import readiness
from coding_tasks.agent_worker.exchange import Exchange
from coding_tasks.agent_worker.readiness import Readiness


def agent_workers() -> list[Readiness]:
    """Return the report of each agent worker that reported in the last minute, sorted by name."""
    return readiness.workers(Exchange(Path(settings.AGENT_EXCHANGE_DIRECTORY)))
