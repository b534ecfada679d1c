"""One step of the setup page."""

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How far a step is."""

    DONE = "done"
    TO_DO = "to do"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Link:
    """Where a step is done."""

    text: str
    address: str


@dataclass(frozen=True, slots=True)
class Step:
    """What one step is about, how far it is, and in one sentence what to do."""

    title: str
    state: State
    found: str
    do: str = ""
    link: Link | None = None

    @property
    def is_done(self) -> bool:
        """Whether the step is done."""
        return self.state is State.DONE
