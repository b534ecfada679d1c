"""What an agent worker is told about one turn, and what it tells back."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from coding_tasks.agents.events import SESSION_ID
from coding_tasks.sandbox.export import is_commit

QUEUE_SUFFIX = "-agents"
"""Added to the task queue's name, for the queue of the agent workers."""
AGENT_MISSING = "AgentMissing"
SANDBOX_MISSING = "SandboxMissing"
MOST_ANSWER = 40_000
MOST_OUTPUT_FILES = 10
"""Files that one turn can leave for people."""
MOST_OUTPUT_BYTES = 5_000_000
"""Bytes of all of them together."""
_INPUT_NAME = re.compile(r"[0-9]{1,3}\.[a-z]{1,8}")


@dataclass(frozen=True)
class TurnRef:
    """The run whose job stands in the exchange. All that Temporal's history has about a turn."""

    run_id: str


@dataclass(frozen=True)
class TurnEnded:
    """The attempt whose files the exchange holds."""

    attempt: str


@dataclass(frozen=True)
class AgentJob:
    """One turn to do. Paths are on the volume that the workers share."""

    tree: str
    """The checkout to start from. Never written to."""
    repository: str
    """The checkout's git directory."""
    commit: str
    """The full id of the checkout's commit, or empty if the repository has no commit."""
    agent: str
    model: str
    prompt: str = field(repr=False)
    gateway_url: str
    product: str
    token: str = field(repr=False)
    trace_id: str
    session: str | None = None
    """The agent's name for the conversation to go on with."""
    home: str = ""
    """The archive of the conversation, or empty."""
    patch: str = ""
    """What an earlier attempt at the turn did before it had to wait, or empty."""
    call_key: str = field(default="", repr=False)
    """A secret of the run. An agent can make its calls' idempotency keys of it, so that a turn that
    is done again finds the answers that were paid for."""
    steps: int = 60
    tokens: int = 2_000_000
    seconds: int = 1_500
    files: Sequence[str] = ()
    """The names of the files that came with the request. The exchange has them."""
    images: Sequence[str] = ()
    """The names of those that the agent shows to its model."""
    note: str = field(default="", repr=False)
    """What the answer has to say about files that the agent did not get."""

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) and _INPUT_NAME.fullmatch(name) for name in self.files):
            raise ValueError("a file has a name that we did not give it")
        if not set(self.images) <= set(self.files):
            raise ValueError("an image is not among the files")
        if not isinstance(self.commit, str) or not is_commit(self.commit):
            raise ValueError("the commit is not an id")


class Kept(StrEnum):
    """How much of the change could be taken out of the sandbox."""

    WHOLE = "whole"
    PARTLY = "partly"
    """The change lacks files that cannot be read."""
    TOO_BIG = "too_big"
    LOST = "lost"
    """It could not be exported."""


class Ending(StrEnum):
    """How a turn ended, as the agent worker saw it. It cannot know whether credits ran out."""

    ANSWERED = "answered"
    SILENT = "silent"
    """The agent ended by itself, without an answer."""
    LIMIT = "limit"
    """It exceeded a limit of the sandbox, which `detail` names."""


@dataclass(frozen=True)
class TurnResult:
    """What a turn led to. Texts come from the agent, so they are untrusted."""

    ending: Ending
    answer: str = field(default="", repr=False)
    complete: bool = True
    """Whether the agent says that it did everything."""
    detail: str = ""
    """The limit that ended it, or what the agent says went wrong."""
    session: str = ""
    steps: int = 0
    refusal: dict[str, Any] | None = None
    """The gateway's refusal of the last call, as the door heard it: the status, the headers that
    say why, and `details`, the error of its body."""
    kept: Kept = Kept.WHOLE
    said: str = field(default="", repr=False)
    """What the agent said last, other than an answer."""

    @classmethod
    def from_json(cls, value: Any) -> "TurnResult":
        """Return the result that an agent worker wrote. Raises `ValueError` if it is malformed."""
        if not isinstance(value, Mapping):
            raise ValueError("not an object")
        steps = value.get("steps")
        session = _text(value.get("session"), 100)
        return cls(
            ending=Ending(str(value.get("ending"))),
            answer=_text(value.get("answer"), MOST_ANSWER),
            complete=value.get("complete") is True,
            detail=_text(value.get("detail"), 500),
            session=session if SESSION_ID.fullmatch(session) else "",
            steps=steps if isinstance(steps, int) and 0 <= steps < 1_000_000 else 0,
            refusal=refusal if isinstance(refusal := value.get("refusal"), dict) else None,
            kept=Kept(str(value.get("kept"))),
            said=_text(value.get("said"), MOST_ANSWER),
        )


def _text(value: object, most: int) -> str:
    return value[:most] if isinstance(value, str) else ""
