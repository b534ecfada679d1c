"""Sentences about what a run may cost, as Slack mrkdwn or, for buttons, as text."""

from billing.credits import display
from quota.reasons import Reason
from workflows.models import RunQuote
from workflows.wording import escape, person

CANCEL = "Cancel"
_WHAT_IS_LEFT = {
    Reason.LIMIT_REACHED: "your team's credits",
    Reason.PROJECT_CAP_REACHED: "this project's share",
    Reason.USER_CAP_REACHED: "your share",
}


def quoted_range(quote: RunQuote) -> str:
    """Say what comparable runs used."""
    if quote.high_micro is None:
        return "There is no history yet of what this uses."
    whose = "comparable runs"
    if quote.history == RunQuote.History.PROJECT:
        whose = "runs of this project"
    used = f"at most {display(quote.high_micro)}"
    if quote.low_micro is not None:
        used = f"{display(quote.low_micro)} to {display(quote.high_micro)}"
    return f"Nine of ten {whose} used {used} credits."


def summary(quote: RunQuote, accepted_micro: int | None) -> str:
    """Say what a run may use, for its progress."""
    left = quote.left_micro
    if accepted_micro is not None and (left is None or accepted_micro <= left):
        cap = f"It stops at the {display(accepted_micro)} credits that were accepted."
    else:
        cap = _left(quote, "were", " when it began")
    return " ".join(filter(None, (quoted_range(quote), cap)))


def _left(quote: RunQuote, verb: str, when: str) -> str:
    """Say what is left of the limit or cap that ends the run first, or nothing without one."""
    if quote.left_micro is None:
        return ""
    credits = display(max(quote.left_micro, 0))
    if quote.left_of == Reason.RUN_CAP_REACHED:
        return f"One task may use {credits} credits."
    return f"{credits} credits {verb} left of {_WHAT_IS_LEFT[Reason(quote.left_of)]}{when}."


def question(user_id: str, quote: RunQuote) -> str:
    """Ask how much a run may use."""
    sentences = [
        f"{person(user_id)}, before I start:",
        quoted_range(quote),
        _left(quote, "are", ""),
        "How much may this use? It stops when it has used that, and shows what it has.",
    ]
    return " ".join(filter(None, sentences))


def accept(credits: str) -> str:
    """Label the button that accepts the offered number of credits."""
    return f"Run for up to {_counted(credits)}"


def smaller(credits: str) -> str:
    """Label the button that accepts a smaller number."""
    return f"Smaller: up to {credits}"


def accepted(user_id: str, credits: str) -> str:
    """Say what was accepted, in place of the question."""
    return f"{person(user_id)} accepted up to {_counted(credits)} for this."


def _counted(credits: str) -> str:
    return "1 credit" if credits == "1" else f"{credits} credits"


def cancelled(user_id: str) -> str:
    """Say that the run does not begin, in place of the question."""
    return f"{person(user_id)} cancelled this, so it has not started."


def expired(user_id: str, *, bot_name: str) -> str:
    """Say that nobody answered, in place of the question."""
    return (
        f"{person(user_id)}, nobody answered in time, so I have not started this. "
        f"Mention {escape(bot_name)} again to ask once more."
    )


def dropped() -> str:
    """Say that the run has ended without a decision, in place of the question."""
    return "This ended before it began, so there is nothing to decide."


def not_yours(user_id: str, *, owner_id: str) -> str:
    """Refuse a click by somebody who may not decide."""
    return (
        f"{person(user_id)}, only {person(owner_id)} and those who approve credits can decide this."
    )


_TOO_LATE = {
    RunQuote.State.ACCEPTED: "this was accepted already.",
    RunQuote.State.SMALLER: "this was accepted already.",
    RunQuote.State.CANCELLED: "this was cancelled already.",
    RunQuote.State.EXPIRED: "this question has expired. Ask again to start.",
    RunQuote.State.DROPPED: "this has ended already, so there is nothing to decide.",
}


def too_late(user_id: str, state: str) -> str:
    """Tell somebody that their click comes too late."""
    return f"{person(user_id)}, {_TOO_LATE[RunQuote.State(state)]}"
