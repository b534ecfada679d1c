"""A run's progress as a message: where it works, its latest step, time, credits, and a button."""

from billing.credits import display
from workflows import wording
from workflows.progress import stop_button
from workflows.progress.state import RunProgress
from workflows.slack.block_kit import Block, button, buttons, context, section


def text_of(progress: RunProgress) -> str:
    """Return the message for places that show no blocks, such as notifications.

    It names no branch: a program that looks for the branch of an answer must not find it here.
    """
    return f"{wording.working_on(progress.repository, '')}. {_step(progress)}"


def blocks_of(progress: RunProgress) -> list[Block]:
    """Return the message's blocks."""
    so_far = wording.so_far(wording.elapsed(progress.seconds), display(progress.credits_micro))
    stop = button(
        wording.stop_button(),
        stop_button.ACTION_ID,
        stop_button.value_for(progress.run_id),
        style="danger",
    )
    return [
        section(f"{_where(progress)}\n{_step(progress)}"),
        context(so_far),
        *([context(progress.quote)] if progress.quote else []),
        buttons(stop),
    ]


def _where(progress: RunProgress) -> str:
    return wording.working_on(progress.repository, progress.branch)


def _step(progress: RunProgress) -> str:
    if not progress.steps:
        return wording.reading()
    return wording.step(progress.steps, progress.action)
