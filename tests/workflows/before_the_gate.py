"""The workflow as it was before its first activity asked the gate.

Only for recording a history: runs begun by such a workflow must replay on today's.
"""

from temporalio import workflow

from workflows.mention import MentionWorkflow, ThreadActivities, _Ended
from workflows.mention_types import Ending, MentionInput, MentionOutcome, MentionRef
from workflows.task_runs import OUTAGE, with_slack


@workflow.defn(name="MentionWorkflow")
class WorkflowBeforeTheGate(MentionWorkflow):
    """Begins with the author's access."""

    @workflow.run
    async def run(self, mention: MentionInput) -> MentionOutcome:
        return await super().run(mention)

    async def _handle(self, mention: MentionInput) -> MentionOutcome:
        access = await with_slack(
            ThreadActivities.check_access, MentionRef(mention.mention_id), OUTAGE
        )
        if access.notice_id:
            raise _Ended(Ending.REFUSED, access.notice_id, access.reason)
        task = await self._make_task(mention, await self._choose_repository(mention))
        failure = await self._answer(mention, task.run_id)
        outcome = MentionOutcome(Ending.FAILED if failure else Ending.ANSWERED, failure)
        await self._close(mention, outcome)
        await self._converse(mention, task.task_id)
        return outcome
