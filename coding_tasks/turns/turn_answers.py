"""What a run answers after its agent's turn, which may have ended at a limit."""

from coding_tasks.agent_worker.job import Ending, TurnResult
from coding_tasks.failures import AgentEnded, OutOfCredits, RunCapReached
from coding_tasks.repositories.changes import Change
from coding_tasks.sandbox.interface import Limit
from quota.reasons import Reason

_CREDITS = "it used the credits that one task may use"
_ACCEPTED = "it used the credits that were accepted for it"
_LIMITS = {
    Limit.SECONDS.value: "it worked for as long as one turn may take",
    Limit.CPU_SECONDS.value: "it used the processor time that one turn may use",
    Limit.MEMORY.value: "it needed more memory than one turn may use",
    Limit.OUTPUT.value: "it printed more than one turn may print",
}


def is_run_cap(refusal: Exception | None) -> bool:
    """Return whether the run reached a cap on runs, set by the team or by the gateway."""
    return isinstance(refusal, RunCapReached) or (
        isinstance(refusal, OutOfCredits) and refusal.cause == Reason.RUN_CAP_REACHED
    )


def answer_of(
    result: TurnResult,
    change: Change | None,
    *,
    capped: bool,
    accepted: bool = False,
    lost: str = "",
    note: str = "",
) -> str:
    """Return the agent's answer, or what it said last and which limit ended it.

    `capped` is whether the run reached a cap on runs, and `accepted` whether that cap is the number
    that somebody accepted. `lost` is a sentence about what is missing from the change, and `note`
    one about files. Raises `AgentEnded` if the agent ended by itself, without an answer and without
    a change.
    """
    limit = ""
    if capped:
        limit = _ACCEPTED if accepted else _CREDITS
    if result.ending == Ending.LIMIT:
        limit = _LIMITS.get(result.detail, "it reached a limit")
    if not limit and result.answer:
        return _joined(result.answer, lost, note)
    if not limit and change is None and not lost:
        raise AgentEnded(f"{result.ending}: {result.detail}")
    words = result.answer or (result.said if limit else "")
    ended = f"The agent ended before it was done ({limit or 'it said nothing'})."
    unchanged = "" if lost else "It has changed nothing."
    kept = "Its change so far is kept." if change else unchanged
    what_next = "Reply to continue." if limit else ""
    sentences = " ".join(filter(None, (ended, kept, what_next)))
    return _joined(words, sentences, lost, note)


def _joined(*paragraphs: str) -> str:
    return "\n\n".join(filter(None, paragraphs))
