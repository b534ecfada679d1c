"""How publishing a change ended. Messages are sentences for the thread."""

from dataclasses import dataclass
from enum import StrEnum


class Rejection(StrEnum):
    """Why a repository does not take a push. Trying again does not help."""

    PROTECTED = "protected"
    NON_FAST_FORWARD = "non_fast_forward"
    NO_PERMISSION = "no_permission"
    NOT_FOUND = "not_found"
    REFUSED = "refused"


@dataclass(frozen=True)
class Published:
    """The change is on its branch. Without a pull request, `note` says why there is none."""

    branch: str
    commit: str
    pull_request: str
    note: str = ""


@dataclass(frozen=True)
class KeptAsDiff:
    """The repository takes no pushes, so the change is only kept here."""

    message: str


@dataclass(frozen=True)
class Rejected:
    """The repository did not take the push. The change is kept here."""

    reason: Rejection
    message: str


@dataclass(frozen=True)
class ConfirmationNeeded:
    """Somebody has to agree first, for these reasons."""

    reasons: tuple[str, ...]


Outcome = Published | KeptAsDiff | Rejected | ConfirmationNeeded


class UndoRefusal(StrEnum):
    """Why a change cannot be undone now. Then nothing is recorded."""

    NO_CHANGE = "no change"
    AT_WORK = "at work"
    BUILT_ON = "built on"
