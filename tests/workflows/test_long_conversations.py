"""A conversation that outgrows one history continues in a new one."""

import pytest
from temporalio.client import WorkflowExecutionStatus

from coding_tasks.models import CodingTask
from devstack.servers import free_port, temporal_server
from tests.conftest import running
from tests.workflows.temporal_server import history, wait_for_close
from tests.workflows.worker_thread import WorkerThread
from tests.workflows.world import World
from workflows.temporal import client

SUGGESTED_AFTER = 30
"""Events of a history; Temporal's own default is 4,096."""


@pytest.fixture
def impatient_temporal(world: World, settings, tmp_path, monkeypatch):
    """A Temporal server that suggests a new history early."""
    port = free_port()
    server = temporal_server(None, port, None)
    name = "limit.historyCount.suggestContinueAsNew"
    server.argv.extend(["--dynamic-config-value", f"{name}={SUGGESTED_AFTER}"])
    settings.TEMPORAL_ADDRESS = f"127.0.0.1:{port}"
    monkeypatch.setattr(client, "_connection", None)
    with running(server, tmp_path / "temporal.log"):
        yield


def test_a_long_conversation_goes_on_in_a_new_history(
    shop: World, impatient_temporal, settings, hurried
):
    hurried(idle_seconds=5)
    with WorkerThread(settings.TEMPORAL_TASK_QUEUE):
        mention = shop.handle("what is this?")
        first = history(mention.workflow_id).run_id
        for number in range(6):
            shop.reply(mention, f"question {number}")
        said = shop.wait_until_said(mention.ts, 7)
        assert wait_for_close(mention.workflow_id) == WorkflowExecutionStatus.COMPLETED

    assert len(said) == len(set(said)) == 7
    assert history(mention.workflow_id).run_id != first
    task = CodingTask.objects.get()
    assert task.state == CodingTask.State.DONE
    assert task.runs.count() == 7
