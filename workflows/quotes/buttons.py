"""The question before a run begins, as blocks. The buttons' values are signed."""

from enum import StrEnum
from uuid import UUID

from billing.credits import exact
from workflows.models import RunQuote
from workflows.quotes import words
from workflows.slack.block_kit import Block, button, buttons, section
from workflows.slack.signed_ids import SignedIds

_RUN = SignedIds("tollgate.quote")


class Action(StrEnum):
    """The buttons of a question."""

    ACCEPT = "tollgate_quote_accept"
    SMALLER = "tollgate_quote_smaller"
    CANCEL = "tollgate_quote_cancel"


ANSWER_OF = {
    Action.ACCEPT: RunQuote.State.ACCEPTED,
    Action.SMALLER: RunQuote.State.SMALLER,
    Action.CANCEL: RunQuote.State.CANCELLED,
}


def key_of(run_id: UUID) -> str:
    """Return the key of the notice with the question about a run."""
    return f"quote:{run_id}"


def question_blocks(text: str, quote: RunQuote) -> list[Block]:
    """Return the question with its buttons."""
    value = value_for(quote.run_id)
    accept = words.accept(exact(quote.offered_micro or 0))
    row = [button(accept, Action.ACCEPT, value, style="primary")]
    if quote.smaller_micro is not None:
        row.append(button(words.smaller(exact(quote.smaller_micro)), Action.SMALLER, value))
    row.append(button(words.CANCEL, Action.CANCEL, value))
    return [section(text), buttons(*row)]


def value_for(run_id: UUID) -> str:
    """Return the value of the buttons of a run's question."""
    return _RUN.sign(run_id)


def run_of(value: str) -> UUID | None:
    """Return the run of a button, or None if we did not make it."""
    return _RUN.read(value)
