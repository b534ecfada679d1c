"""The agent workers that are running, and what each can run."""

from coding_tasks.agent_worker import readiness
from coding_tasks.agent_worker.readiness import Readiness
from coding_tasks.turns.shared_exchange import shared_exchange


def agent_workers() -> list[Readiness]:
    """Return the report of each agent worker that reported in the last minute, sorted by name."""
    return readiness.workers(shared_exchange())
