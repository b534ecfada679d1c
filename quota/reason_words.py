"""Reasons for a refusal and states of accounts, in words for administrators."""

import re

from quota.reasons import Reason

WORDS: dict[str, str] = {
    Reason.LIMIT_REACHED: "the limit and all top-ups are used up",
    Reason.INSUFFICIENT_REMAINING: "what is left does not pay for a generation",
    Reason.ORGANIZATION_INACTIVE: "the organization is not active",
    Reason.PROJECT_CAP_REACHED: "the cap of the project is reached",
    Reason.USER_CAP_REACHED: "the cap of the user is reached",
    Reason.RUN_CAP_REACHED: "the cap of the run is reached",
    Reason.SET_BY_HAND: "set by hand in Redis, not decided by billing",
}
STATES: dict[str, str] = {
    "": "not decided yet",
    "ok": "not limited",
    "warning": "close to the limit",
    "grace": "in grace",
    "limited": "limited",
    "unknown": "not known",
}
_NAMES = re.compile(r"\b(?:" + "|".join(WORDS) + r")\b")


def in_words(reason: str | None) -> str:
    """Return a reason in words; an unknown one with spaces for underscores."""
    return WORDS.get(reason or "", (reason or "").replace("_", " "))


def state_in_words(state: str | None) -> str:
    """Return the state of an account in words."""
    return STATES.get(state or "", state or "")


def with_reasons_in_words(text: str) -> str:
    """Return a text with every name of a reason replaced by its words."""
    return _NAMES.sub(lambda found: WORDS[found[0]], text)
