"""What the Temporal server knows of a workflow."""

import asyncio
from datetime import timedelta

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowHistory

from workflows.client import connect


async def _handle(workflow_id: str) -> WorkflowHandle:
    return (await connect()).get_workflow_handle(workflow_id)


def wait_for_close(workflow_id: str) -> WorkflowExecutionStatus:
    """Wait for the end of the workflow, whatever it is; return its status."""

    async def wait() -> WorkflowExecutionStatus:
        handle = await _handle(workflow_id)
        async with asyncio.timeout(30):
            while True:
                status = (await handle.describe()).status
                if status != WorkflowExecutionStatus.RUNNING:
                    return status
                await asyncio.sleep(0.02)

    return asyncio.run(wait())


def history(workflow_id: str) -> WorkflowHistory:
    """Return the history so far of the workflow's latest run."""

    async def fetch() -> WorkflowHistory:
        return await (await _handle(workflow_id)).fetch_history()

    return asyncio.run(fetch())


def cancel(workflow_id: str) -> None:
    """Ask the workflow to cancel itself, as an operator does."""

    async def ask() -> None:
        await (await _handle(workflow_id)).cancel(rpc_timeout=timedelta(seconds=5))

    asyncio.run(ask())


def terminate(workflow_id: str) -> None:
    """End the workflow without asking it, as an operator may."""

    async def end() -> None:
        await (await _handle(workflow_id)).terminate()

    asyncio.run(end())
