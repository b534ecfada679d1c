"""What an agent that reads is given: the assignment, the checkout, and access to the model."""

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from coding_tasks.material import Material
from coding_tasks.reading.checkouts import Checkout


@dataclass(frozen=True)
class ModelAccess:
    """One gateway product and the token to call it with, which `repr` does not show.

    `trace_id` (32 hex digits, https://www.w3.org/TR/trace-context/) identifies the workflow of a
    call, in the ledger and in traces. `purpose` names the work that makes the calls. If an attempt
    at the work is repeated with the same questions in the same order, it gets the answers that the
    earlier attempt paid for. With an empty purpose no answer is reused.
    """

    base_url: str
    token: str = field(repr=False)
    trace_id: str
    purpose: str = ""
    steps: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)


def trace_of(workflow_id: str) -> str:
    """Return the trace id of all calls made for one workflow."""
    return uuid.uuid5(uuid.NAMESPACE_URL, workflow_id).hex


@dataclass(frozen=True)
class Turn:
    """An earlier request of the task and the answer it got."""

    request: str
    answer: str


@dataclass(frozen=True)
class Assignment:
    """The turn to do: the repository, the request, and the earlier turns of the task.

    `repository` is empty if the task has no repository.
    """

    repository: str
    request: str
    earlier: tuple[Turn, ...] = ()
    model: str = ""
    """The model that was asked for, if any."""
    material: Material = field(default_factory=Material)
    """What others wrote in the thread, and the attached files."""


class Agent(Protocol):
    """Does one turn of a coding task."""

    def work(self, assignment: Assignment, checkout: Checkout, access: ModelAccess) -> str:
        """Return the answer for the thread, as plain text.

        Raises `OutOfCredits` and `RunFailure`. Implementations keep no state between calls, because
        a call may be repeated on another machine.
        """
        ...
