"""The buttons below a failure, a stop and an answer: start again, continue, undo.

Their values are signed, because they come back through a browser.
"""

from uuid import UUID

from workflows import wording
from workflows.slack.block_kit import Block, button, buttons, section
from workflows.slack.signed_ids import SignedIds

START_AGAIN = "tollgate_retry"
GO_ON = "tollgate_go_on"
UNDO = "tollgate_undo"
_RUN = SignedIds("tollgate.again.run")
_MENTION = SignedIds("tollgate.again.mention")
_CHANGE = SignedIds("tollgate.undo")


def start_run_again(run_id: UUID) -> Block:
    """Return the button that starts a failed or stopped run again."""
    return button(wording.start_again_button(), START_AGAIN, _RUN.sign(run_id))


def start_mention_again(mention_id: UUID) -> Block:
    """Return the button that starts a mention without a run again."""
    return button(wording.start_again_button(), START_AGAIN, _MENTION.sign(mention_id))


def go_on(run_id: UUID) -> Block:
    """Return the button that goes on with a stopped run."""
    return button(wording.go_on_button(), GO_ON, _RUN.sign(run_id), style="primary")


def undo(run_id: UUID) -> Block:
    """Return the button that undoes a run's change, after a question."""
    made = button(wording.undo_button(), UNDO, _CHANGE.sign(run_id))
    return made | {"confirm": wording.undo_confirmation()}


def below(text: str, *elements: Block) -> list[Block]:
    """Return a message with buttons below its text, or nothing if there are no buttons."""
    return [section(text), buttons(*elements)] if elements else []


def run_of(value: str) -> UUID | None:
    """Return the run to start again or to go on with, or None if the value isn't about a run."""
    return _RUN.read(value)


def mention_of(value: str) -> UUID | None:
    """Return the mention to start again, or None if the value isn't about a mention."""
    return _MENTION.read(value)


def change_of(value: str) -> UUID | None:
    """Return the run whose change is to be undone, or None if we did not make the button."""
    return _CHANGE.read(value)


def has_value(blocks: list[Block], value: str) -> bool:
    """Return whether one of the blocks has a button with this value."""
    elements = (each for block in blocks for each in block.get("elements", ()))
    return any(each.get("value") == value for each in elements)
