"""Who does the work: the interface that every coding agent has."""

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from coding_tasks.sandbox import Checkout


@dataclass(frozen=True)
class ModelAccess:
    """One gateway product and the token to call it with, which `repr` does not show.

    `trace_id` (32 hex digits, https://www.w3.org/TR/trace-context/) says what a call was made for,
    in the ledger and in traces. `purpose` names the piece of work that makes the calls: a repeated
    attempt at it asks the same questions in the same order, and gets the answers that an earlier
    one paid for. With an empty purpose every call is made.
    """

    base_url: str
    token: str = field(repr=False)
    trace_id: str
    purpose: str = ""
    steps: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)


def trace_of(workflow_id: str) -> str:
    """Return the trace id that all calls made for one workflow have in common."""
    return uuid.uuid5(uuid.NAMESPACE_URL, workflow_id).hex


@dataclass(frozen=True)
class Turn:
    """An earlier request of the task and the answer it got."""

    request: str
    answer: str


@dataclass(frozen=True)
class Assignment:
    """One turn of a task: what is asked about which repository, and what was said before."""

    repository: str
    request: str
    earlier: tuple[Turn, ...] = ()


class Agent(Protocol):
    """Does one turn of a coding task."""

    def work(self, assignment: Assignment, checkout: Checkout, access: ModelAccess) -> str:
        """Return the answer for the thread, as plain text.

        Raises `OutOfCredits` and `RunFailure`; keeps nothing between calls, for a call may be
        repeated on another machine.
        """
        ...
