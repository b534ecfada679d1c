"""The sandbox that workflow code runs in, and what of our code it does not reload.

The sandbox re-imports what a workflow imports, so that runs share no state, and refuses what is
not deterministic. Activities are named in workflows but run elsewhere: their modules, and with them
Django, pass through. The workflow's own module never does.
"""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

PASSED_THROUGH = ("workflows.activities", "workflows.mention_types")


def sandboxed_runner() -> SandboxedWorkflowRunner:
    """Return the runner for the worker, and for replays."""
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH)
    return SandboxedWorkflowRunner(restrictions=restrictions)
