"""What is known of a run while it works, however it is shown."""

from dataclasses import dataclass
from datetime import datetime

from coding_tasks.models import TaskRun
from coding_tasks.models.kept_changes import TaskBranch
from coding_tasks.turns import transcripts
from workflows.models import RunQuote
from workflows.quotes import words


@dataclass(frozen=True)
class RunProgress:
    """One look at a running run. `action` is an agent's text, so it is untrusted."""

    run_id: str
    repository: str
    branch: str
    steps: int
    action: str
    seconds: int
    credits_micro: int
    quote: str
    """The summary of its quote, as mrkdwn. Empty for old runs."""


def read(run: TaskRun, credits_micro: int, now: datetime) -> RunProgress:
    """Return what is known of the run, with the credits that it has used so far."""
    steps, action = transcripts.latest_step(run) if run.task.needs_sandbox else (0, "")
    quote = RunQuote.objects.filter(run=run).first()
    branch = TaskBranch.objects.filter(task=run.task_id).values_list("name", flat=True).first()
    return RunProgress(
        run_id=str(run.pk),
        repository=run.task.repository_name,
        branch=branch or "",
        steps=steps,
        action=action,
        seconds=_rounded((now - (run.started_at or now)).total_seconds()),
        credits_micro=credits_micro,
        quote="" if quote is None else words.summary(quote, run.accepted_micro),
    )


def _rounded(seconds: float) -> int:
    """Return a time that changes rarely, so that time alone causes few edits."""
    step = 10 if seconds < 60 else 30 if seconds < 600 else 60
    return int(seconds // step * step)
