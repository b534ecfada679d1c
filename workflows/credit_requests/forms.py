"""The buttons and modals of requests for credits, and what they send back.

Values and `private_metadata` hold the request's id, signed, because they come back through a
browser. https://docs.slack.dev/reference/views/modal-views/ describes the modals.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from billing.credits import exact, parse_credits
from workflows.credit_requests import words
from workflows.slack.block_kit import button, buttons, section
from workflows.slack.signed_ids import SignedIds

ASK = "tollgate_ask_for_credits"
APPROVE_FOR_TASK = "tollgate_approve_for_task"
APPROVE = "tollgate_approve_credits"
DECLINE = "tollgate_decline_credits"
_LONGEST_REASON = 300
_MENTION = SignedIds("tollgate.credit_request.mention")
_REQUEST = SignedIds("tollgate.credit_request")


class Until(StrEnum):
    """Until when an approved amount can be used."""

    PERIOD_END = "period_end"
    DAY = "day"
    WEEK = "week"
    FOR_EVER = "for_ever"


_LABELS = {
    Until.PERIOD_END: "the end of this period",
    Until.DAY: "tomorrow, this time",
    Until.WEEK: "in seven days",
    Until.FOR_EVER: words.FOR_EVER,
}
_TIMES = {Until.DAY: timedelta(days=1), Until.WEEK: timedelta(days=7)}


class Invalid(ValueError):
    """A field of a modal has a value that is not allowed. `field` is its block id."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


# --- Messages ------------------------------------------------------------------------------------
def offer_blocks(text: str, mention_id: UUID) -> list[dict[str, Any]]:
    """Return the offer to ask, with its button."""
    return [section(text), buttons(ask_button(mention_id))]


def ask_button(mention_id: UUID, *, style: str = "") -> dict[str, Any]:
    """Return the button that asks for credits for a refused mention."""
    return button(words.ASK, ASK, _MENTION.sign(mention_id), style=style)


def request_blocks(text: str, request_id: UUID, amount: str) -> list[dict[str, Any]]:
    """Return the message to those who decide, with its buttons."""
    value = _REQUEST.sign(request_id)
    row = buttons(
        button(words.approve_for_task(amount), APPROVE_FOR_TASK, value, style="primary"),
        button(words.APPROVE, APPROVE, value),
        button(words.DECLINE, DECLINE, value),
    )
    return [section(text), row]


def mention_of(value: str) -> UUID:
    """Return the mention in the value of an offer's button. Raises `ValueError` if it is forged."""
    return _signed_by_us(_MENTION.read(value))


def request_of(value: str) -> UUID:
    """Return the request in a button's value or a modal's metadata. Raises `ValueError`."""
    return _signed_by_us(_REQUEST.read(value))


def _signed_by_us(row_id: UUID | None) -> UUID:
    if row_id is None:
        raise ValueError("not signed by us")
    return row_id


# --- Modals --------------------------------------------------------------------------------------
def approval_modal(request_id: UUID, suggested_micro: int, *, has_period: bool) -> dict[str, Any]:
    """Return the form for an amount and how long it can be used."""
    choices = [each for each in Until if has_period or each is not Until.PERIOD_END]
    options = [_option(each) for each in choices]
    amount = {
        "type": "plain_text_input",
        "action_id": "amount",
        "initial_value": exact(suggested_micro),
        "max_length": 20,
    }
    until = {
        "type": "static_select",
        "action_id": "until",
        "options": options,
        "initial_option": options[0],
    }
    return _modal(
        APPROVE,
        request_id,
        words.MODAL_APPROVE,
        [
            _input("amount", words.AMOUNT, amount),
            _input("until", words.USABLE_UNTIL, until),
            _input("reason", words.REASON_AUDITED, _reason()),
        ],
    )


def decline_modal(request_id: UUID) -> dict[str, Any]:
    """Return the form for the reason of a refusal."""
    fields = [_input("reason", words.REASON_TOLD, _reason())]
    return _modal(DECLINE, request_id, words.MODAL_DECLINE, fields)


def amount_in(state: Mapping[str, Any]) -> int:
    """Return the micro-credits in a submitted form. Raises `Invalid`."""
    try:
        amount = parse_credits(str(_field(state, "amount").get("value") or "").strip())
    except ValueError:
        amount = 0
    if amount <= 0:
        raise Invalid("amount", words.bad_amount())
    return amount


def expiry_in(
    state: Mapping[str, Any], now: datetime, period_end: datetime | None
) -> datetime | None:
    """Return when the submitted amount expires, or None for never. Raises `Invalid`."""
    chosen = _field(state, "until").get("selected_option")
    value = chosen.get("value") if isinstance(chosen, dict) else None
    if value == Until.FOR_EVER:
        return None
    if value == Until.PERIOD_END and period_end is not None and period_end > now:
        return period_end
    if value in (Until.DAY, Until.WEEK):
        return now + _TIMES[Until(value)]
    raise Invalid("until", words.bad_time())


def reason_in(state: Mapping[str, Any]) -> str:
    """Return the reason in a submitted form. Raises `Invalid` if there is none."""
    value = _field(state, "reason").get("value")
    reason = value.strip()[:_LONGEST_REASON] if isinstance(value, str) else ""
    if not reason:
        raise Invalid("reason", words.no_reason())
    return reason


def _field(state: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    block = state.get(name)
    field = block.get(name) if isinstance(block, dict) else None
    return field if isinstance(field, dict) else {}


def _modal(
    callback_id: str, request_id: UUID, title: str, fields: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "type": "modal",
        "callback_id": callback_id,
        "private_metadata": _REQUEST.sign(request_id),
        "title": _plain(title),
        "submit": _plain(title),
        "close": _plain(words.CANCEL),
        "blocks": fields,
    }


def _reason() -> dict[str, Any]:
    return {"type": "plain_text_input", "action_id": "reason", "max_length": _LONGEST_REASON}


def _input(name: str, label: str, element: dict[str, Any]) -> dict[str, Any]:
    return {"type": "input", "block_id": name, "label": _plain(label), "element": element}


def _option(until: Until) -> dict[str, Any]:
    return {"text": _plain(_LABELS[until]), "value": until.value}


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}
