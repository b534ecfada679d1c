"""The workflow of a task over the API: it performs the task's runs, one after the other.

The rows say which run is next. A signal only says that there is another one. Like the workflow of a
mention, this code is deterministic.
"""

import asyncio

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from workflows.activities.api_tasks import ApiTaskActivities
from workflows.api_task_types import ApiTaskInput, ApiTaskRef, GivenUpTask
from workflows.task_runs import PerformsRuns, cause_of, locally


@workflow.defn
class ApiTaskWorkflow(PerformsRuns):
    """One stretch of work on a task. The next message starts another one under the same id."""

    def __init__(self) -> None:
        super().__init__()
        self._messages = 0

    @workflow.signal
    def run_added(self) -> None:
        """Look for one more run before ending. A needless signal does no harm."""
        self._messages += 1

    @workflow.run
    async def run(self, task: ApiTaskInput) -> None:
        """Perform the task's runs, and record how they end."""
        try:
            await self._perform_all(task)
        except (FailureError, asyncio.CancelledError) as error:
            await locally(
                ApiTaskActivities.give_up_task, GivenUpTask(task.task_id, cause_of(error))
            )
            if is_cancelled_exception(error):
                raise

    async def _perform_all(self, task: ApiTaskInput) -> None:
        while True:
            known = self._messages
            found = await locally(ApiTaskActivities.next_run, ApiTaskRef(task.task_id))
            if found.run_id:
                await self._answer(task, found.run_id)
                if workflow.info().is_continue_as_new_suggested():
                    workflow.continue_as_new(task)
            elif self._messages == known:
                return

    def _signals(self) -> int:
        """Return how many signals came. Messages and credits both make a paused run check again."""
        return self._messages + super()._signals()
