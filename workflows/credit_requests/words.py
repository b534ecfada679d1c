"""Sentences about requests for credits, as Slack mrkdwn or, for buttons and fields, as text."""

from datetime import datetime

from workflows.wording import escape, person

ASK = "Ask for more credits"
APPROVE = "Approve…"
DECLINE = "Decline…"
MODAL_APPROVE = "Approve credits"
MODAL_DECLINE = "Decline"
CANCEL = "Cancel"
AMOUNT = "Credits"
USABLE_UNTIL = "Usable until"
REASON_AUDITED = "Reason, for the audit trail"
REASON_TOLD = "Reason, shown to the person"
FOR_EVER = "they are used"

# Escaped and quoted, this fits the 3,000 characters that Slack takes in a section.
_LONGEST_QUOTE = 400
_MOST_LINES = 8


def offer() -> str:
    """Offer the author of a refused mention to ask for credits."""
    return "I can ask for more credits for this, and then start by myself."


def asks(user_id: str, request: str, *, remaining: str, typical: str | None) -> str:
    """Tell those who decide: who asks, for what, what is left, and what it may cost."""
    cost = (
        f"Nine of ten tasks of this project cost at most {typical} credits."
        if typical
        else "There is no history yet of what tasks of this project cost."
    )
    return f"{person(user_id)} asks for credits for:\n{_quoted(request)}\n{remaining} {cost}"


def changed(user_id: str, request: str) -> str:
    """Tell those who decide that the author has changed what the request is for."""
    return f"{person(user_id)} has changed the request. It is now for:\n{_quoted(request)}"


def remaining(left: str | None) -> str:
    """Say how many credits are left."""
    return "It is not known what is left." if left is None else f"{left} credits are left."


def approve_for_task(amount: str) -> str:
    """Label the button that approves an amount for this task."""
    return f"Approve {amount} credits for this task"


def asked(channel_id: str) -> str:
    """Confirm that those who decide were asked."""
    where = person(channel_id) if channel_id.startswith(("U", "W")) else f"<#{channel_id}>"
    return f"I have asked {where}. As soon as there are credits, I will start by myself."


def asked_already() -> str:
    """Say that those who decide were asked before."""
    return "I have asked already. As soon as there are credits, I will start by myself."


def asked_too_often() -> str:
    """Say that the person has too many open requests."""
    return "You already have several open requests. Please wait until they are decided."


def cannot_ask() -> str:
    """Say that there is nothing to ask for any more."""
    return "There is nothing to ask for any more. Mention me again to start."


def not_yours() -> str:
    """Refuse a click by somebody else than the author."""
    return "Only the person who was refused can ask."


def no_right() -> str:
    """Refuse a click by somebody who may not add credits."""
    return (
        "You cannot decide this: your Slack user is not connected to an admin user who may top up. "
        "An administrator can connect them in the admin, under “Credit approvers”."
    )


_ENDED = {
    "approved": "This request was approved already.",
    "resumed": "This request has ended already: the work has started.",
    "declined": "This request was declined already.",
    "lapsed": "This request has waited too long, so it has ended.",
    "dropped": "This request has ended: it is no longer needed.",
}


def decided_already(state: str) -> str:
    """Say that a request has ended, or was decided before."""
    return _ENDED[state]


def too_little(missing: str) -> str:
    """Say that an amount would not let the work start."""
    return f"That is too little to start: at least {missing} credits are needed."


def cannot_help() -> str:
    """Say that no amount would let the work start."""
    return (
        "A top-up does not help here: the credits are switched off for another reason. The "
        "organization's page in the admin names it."
    )


def approved(decider_id: str, amount: str, *, until: datetime | None) -> str:
    """Say who approved how much."""
    end = f", usable until {until:%Y-%m-%d %H:%M} UTC" if until else ""
    return f"{person(decider_id)} approved {amount} credits{end}."


def starting(decider_id: str) -> str:
    """Tell the author that the work goes on."""
    by = f"{person(decider_id)} approved it." if decider_id else "There are credits again."
    return f"{by} I start now."


def declined(decider_id: str, reason: str) -> str:
    """Say who declined, and why."""
    return f"{person(decider_id)} declined the request for credits: {escape(reason)}"


def lapsed() -> str:
    """Tell the author that the request waited too long."""
    return "Your request for credits waited too long. Mention me again to try once more."


def lapsed_for_deciders() -> str:
    """Tell those who decide that the request has ended by itself."""
    return "This request has waited too long, so it has ended."


def withdrawn() -> str:
    """Tell those who decide that the author does not want it any more."""
    return "No longer needed: its author deleted the message, repeated it or said stop."


def no_longer_needed() -> str:
    """Tell those who decide that no decision is needed any more."""
    return "No longer needed: there were credits, so the work has started."


def not_delivered() -> str:
    """Tell the author that Slack refuses the message to those who decide."""
    return (
        "I could not ask: Slack refuses my message to those who decide. An administrator can check "
        "the credits channel in the admin. If there are credits in the next days, I still start."
    )


def no_reason() -> str:
    """Say that a form needs a reason."""
    return "Write a reason."


def bad_time() -> str:
    """Say that the chosen time has passed."""
    return "Choose another time: this one has passed."


def bad_amount() -> str:
    """Say which amounts the form takes."""
    return "Write an amount such as 40 or 12.5, of at most 100,000,000,000 credits."


def _quoted(text: str) -> str:
    return "\n".join(f"&gt; {line}" for line in escape(_shortened(text)).splitlines() or [""])


def _shortened(text: str) -> str:
    lines = text.strip().splitlines()
    kept = "\n".join(lines[:_MOST_LINES])
    if len(kept) > _LONGEST_QUOTE or len(lines) > _MOST_LINES:
        return f"{kept[:_LONGEST_QUOTE]}…"
    return kept
