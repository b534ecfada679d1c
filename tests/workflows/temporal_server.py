"""Questions to the Temporal server about a workflow, and orders of operators."""

import asyncio
import uuid
from datetime import timedelta

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowHistory

from workflows.temporal.client import connect


async def _handle(workflow_id: str) -> WorkflowHandle:
    return (await connect()).get_workflow_handle(workflow_id)


def wait_for_close(workflow_id: str) -> WorkflowExecutionStatus:
    """Wait until the workflow has ended in any way; return its status."""

    async def wait() -> WorkflowExecutionStatus:
        handle = await _handle(workflow_id)
        async with asyncio.timeout(60):
            while True:
                status = (await handle.describe()).status
                if status != WorkflowExecutionStatus.RUNNING:
                    return status
                await asyncio.sleep(0.02)

    return asyncio.run(wait())


def begun_turns(workflow_id: str) -> set[str]:
    """Return the activity ids of the agents' turns that the server knows to have begun.

    These are the turns that have sent a heartbeat and have not ended yet.
    """

    async def ask() -> set[str]:
        described = await (await _handle(workflow_id)).describe()
        return {
            each.activity_id
            for each in described.raw_description.pending_activities
            if each.activity_type.name == "run_turn" and each.heartbeat_details.payloads
        }

    return asyncio.run(ask())


def history(workflow_id: str) -> WorkflowHistory:
    """Return the present history of the workflow's latest run."""

    async def fetch() -> WorkflowHistory:
        return await (await _handle(workflow_id)).fetch_history()

    return asyncio.run(fetch())


def cancel(workflow_id: str) -> None:
    """Ask the workflow to cancel itself, as an operator does."""

    async def ask() -> None:
        await (await _handle(workflow_id)).cancel(rpc_timeout=timedelta(seconds=30))

    asyncio.run(ask())


def terminate(workflow_id: str) -> None:
    """Terminate the workflow, as an operator may."""

    async def end() -> None:
        await (await _handle(workflow_id)).terminate()

    asyncio.run(end())


def reset_to_start(workflow_id: str) -> None:
    """Reset the workflow: a run with the same id begins again from the first step."""

    async def reset() -> None:
        handle = await _handle(workflow_id)
        events = (await handle.fetch_history()).events
        first = next(
            each.event_id
            for each in events
            if each.HasField("workflow_task_completed_event_attributes")
        )
        client = await connect()
        await client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=workflow_id),
                reason="a test",
                workflow_task_finish_event_id=first,
                request_id=str(uuid.uuid4()),
            )
        )

    asyncio.run(reset())
