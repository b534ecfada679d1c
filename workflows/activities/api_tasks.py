"""Activities for tasks over the API: find the next run, give the task up."""

from temporalio import activity

from coding_tasks import api_tasks
from workflows.activities import refunds
from workflows.api_task_types import ApiTaskRef, GivenUpTask, NextRun


class ApiTaskActivities:
    """Activities that read and change a task's rows."""

    @activity.defn
    def next_run(self, ref: ApiTaskRef) -> NextRun:
        """Return the task's next run. If there is none, close the task."""
        run = api_tasks.next_run(ref.task_id)
        return NextRun(str(run.pk)) if run else NextRun()

    @activity.defn
    def give_up_task(self, task: GivenUpTask) -> None:
        """Fail the task's runs after a failure that nothing else handles."""
        api_tasks.give_up(task.task_id, task.why, ours=refunds.is_ours(task.why))
