"""Reasons for a refusal in words for administrators."""

from quota.reasons import Reason

_WORDS: dict[str, str] = {
    Reason.LIMIT_REACHED: "nothing is left of limit and top-ups",
    Reason.INSUFFICIENT_REMAINING: "what is left pays for no generation",
    Reason.ORGANIZATION_INACTIVE: "the organization is not active",
    Reason.PROJECT_CAP_REACHED: "the cap of the project is reached",
    Reason.USER_CAP_REACHED: "the cap of the user is reached",
    Reason.RUN_CAP_REACHED: "the cap of the run is reached",
    Reason.SET_BY_HAND: "set by hand in Redis: no decision of ours",
}


def in_words(reason: str | None) -> str:
    """Return what a reason means; one without words of its own as it is."""
    return _WORDS.get(reason or "", (reason or "").replace("_", " "))
