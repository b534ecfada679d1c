"""The notices that tell a task's thread about a run: its answer, a denial or a failure.

Each function returns None for a task without a thread, whose owner reads the run over the API.
"""

from django.conf import settings

from coding_tasks.failures import OutOfCredits
from coding_tasks.models import TaskRun
from workflows import denials, notices, wording
from workflows.messages import run_buttons
from workflows.models import Notice
from workflows.requests import message_of
from workflows.results import failure_wording


def claim_answer(run: TaskRun) -> str | None:
    """Return the id of the notice with the run's answer, creating it if needed."""
    if not run.task.has_thread:
        return None
    return str(notices.claim_answer(run, message_of(run)).pk)


def tell_in_line(run: TaskRun) -> None:
    """Tell the run's thread, once, that the run waits for one of its project's places."""
    if not run.task.has_thread:
        return
    text = wording.in_line(settings.AGENT_TURNS_PER_PROJECT)
    told = notices.claim(f"in-line:{run.pk}", Notice.Kind.HINT, message_of(run), text)
    notices.send_soon(told)


def claim_denial(run: TaskRun, refusal: OutOfCredits) -> str | None:
    """Return the id of the denial of a run that the gateway refused, creating it if needed."""
    if not run.task.has_thread:
        return None
    about = message_of(run)
    denial = denials.claim_after_gateway_refusal(about, run.task.project, refusal, half_way=True)
    return str(denial.pk)


def claim_failure(run: TaskRun, failure: str) -> str | None:
    """Return the id of the notice that says why the run failed, creating it if needed."""
    if not run.task.has_thread:
        return None
    about = message_of(run)
    text = failure_wording.sentence(
        failure,
        user_id=about.user_id,
        repository=run.task.repository_name,
        agent=run.task.agent,
        resource=run.task.resource,
    )
    text = " ".join([text, *notices.given_back_sentences([run])])
    blocks = run_buttons.below(text, run_buttons.start_run_again(run.pk))
    key = f"failed:{run.pk}"
    return str(notices.claim(key, Notice.Kind.FAILURE, about, text, blocks=blocks).pk)
