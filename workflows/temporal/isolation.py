"""The sandbox that workflow code runs in, and the modules of ours that it does not reload.

The sandbox re-imports the modules of a workflow, so that runs share no state, and rejects calls
that are not deterministic. Activities are named in workflows but run elsewhere, so their modules
and the types that they exchange, and Django with them, pass through. Modules with workflow code
never do.
"""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

PASSED_THROUGH = (
    "coding_tasks",
    "workflows.activities",
    "workflows.api_task_types",
    "workflows.mention_types",
)


def sandboxed_runner() -> SandboxedWorkflowRunner:
    """Return the runner for the worker and for replays."""
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH)
    return SandboxedWorkflowRunner(restrictions=restrictions)
