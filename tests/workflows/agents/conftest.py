"""Fixtures for runs of agents: a project whose agent runs its request, and an agent worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_tasks.models import ProjectAgent
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from tests.workflows.agent_worker import SHELL, AgentWorkerThread
from tests.workflows.worker_thread import WorkerThread
from tests.workflows.world import World


@pytest.fixture(scope="session")
def sandbox() -> Bubblewrap:
    found = Bubblewrap()
    if reason := found.why_missing():
        pytest.skip(f"no sandbox on this machine: {reason}")
    return found


@pytest.fixture
def coding(shop: World, settings, tmp_path: Path) -> World:
    """The shop, whose project's agent runs its prompt as shell code. No worker runs."""
    settings.AGENT_EXCHANGE_DIRECTORY = str(tmp_path / "exchange")
    settings.REPOSITORIES_DIRECTORY = str(tmp_path / "git")
    settings.AGENT_COMMANDS = SHELL
    ProjectAgent.objects.create(project=shop.project, agent="shell")
    return shop


@pytest.fixture
def worker(coding: World, settings) -> Iterator[WorkerThread]:
    """A worker that was started after the settings of `coding`."""
    with WorkerThread(settings.TEMPORAL_TASK_QUEUE) as running:
        yield running
        coding.gateway.release()


@pytest.fixture
def agents(coding: World, worker, sandbox: Bubblewrap) -> Iterator[AgentWorkerThread]:
    with AgentWorkerThread(sandbox) as running:
        yield running
