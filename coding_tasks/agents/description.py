"""The description of a coding agent: how one turn of it is run, and how its output is read.

An agent is one file of this folder with one class that has these attributes and methods, and one
line in `coding_tasks/agents/registry.py`. Nothing here runs anything: `Command` is for the sandbox.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from coding_tasks.agents.events import SESSION_ID, Event
from coding_tasks.sandbox.command import HOME_INSIDE, OUTPUT_INSIDE, PYTHON_INSIDE, Command

AGENTS_INSIDE = "/opt/agents"
"""Where a sandbox shows an agent's read-only installation."""
PROGRAMS_INSIDE = f"{AGENTS_INSIDE}/inside"
"""Where a sandbox shows our own programs for agents."""
_PROGRAMS = Path(__file__).parent / "inside"
_WITHOUT_IMAGES = re.compile(
    r"claude-(?:2|instant)|gpt-3\.5|gpt-4(?:-0314|-0613|-32k.*)?$|gpt-oss|o1-(?:mini|preview)|o3-mini"
)
"""Models that take no images. All others of the providers do:
https://docs.claude.com/en/docs/about-claude/models and https://platform.openai.com/docs/models."""
MOST_PROMPT = 100_000
"""Bytes of a prompt. Linux takes at most 128 KiB as one argument."""


class GatewayAPI(StrEnum):
    """The gateway's API that an agent speaks, and so the models that it can use."""

    MESSAGES = "messages"
    RESPONSES = "responses"
    CHAT_COMPLETIONS = "chat_completions"


@dataclass(frozen=True)
class Budget:
    """What one turn may use. Only our own agent obeys steps and tokens by itself."""

    steps: int = 60
    """Calls of the model."""
    tokens: int = 2_000_000
    """Input and output tokens together, as the provider counts them."""
    seconds: int = 1_500


@dataclass(frozen=True)
class Turn:
    """One turn of an agent: what it is asked, and with which model, session, token and budget.

    `base_url` is the gateway as the agent sees it, with the product and without an API's path, such
    as `http://127.0.0.1:8010/slack_app`. `session` continues an earlier conversation; it is the id
    of a `SessionStarted` event. `trace_id` has 32 hex digits. `call_key` is a secret of the run,
    the same when the turn is done again; idempotency keys can be made of it. Raises `ValueError` if
    the prompt is empty or longer than `MOST_PROMPT` bytes, or if the session is not such an id.
    """

    prompt: str
    model: str
    base_url: str
    token: str = field(repr=False)
    trace_id: str
    session: str | None = None
    budget: Budget = field(default_factory=Budget)
    call_key: str = field(default="", repr=False)
    images: Sequence[str] = ()
    """The paths in the sandbox of images that came with the prompt. The prompt names them too."""

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ValueError("the prompt is empty")
        if len(self.prompt.encode("utf-8", "replace")) > MOST_PROMPT:
            raise ValueError(f"the prompt has more than {MOST_PROMPT} bytes")
        if self.session is not None and not SESSION_ID.fullmatch(self.session):
            raise ValueError("the session is not an id")

    @property
    def traceparent(self) -> str:
        """The W3C header that puts the turn's calls into one trace."""
        return f"00-{self.trace_id}-{self.trace_id[:16]}-01"


class Parser(Protocol):
    """Reads the output of one turn. A line that it doesn't understand yields no event."""

    def events(self, line: bytes) -> Sequence[Event]:
        """Return what one line of standard output says. Never raises."""
        ...

    def end(self) -> Sequence[Event]:
        """Return what is only known once the output has ended, such as the answer."""
        ...


class CodingAgent(Protocol):
    """One kind of agent."""

    @property
    def name(self) -> str:
        """The name that people write, in lower case."""
        ...

    @property
    def title(self) -> str:
        """The name for texts that people read."""
        ...

    @property
    def api(self) -> GatewayAPI:
        """The gateway's API that it calls."""
        ...

    @property
    def resumes(self) -> bool:
        """Whether a later turn can continue the conversation of an earlier one."""
        ...

    @property
    def takes_images(self) -> bool:
        """Whether it can show images to a model."""
        ...

    @property
    def session_directories(self) -> tuple[str, ...]:
        """The directories below the home that hold conversations. Restore them to resume."""
        ...

    def why_missing(self, prefix: Path) -> str | None:
        """Return why the agent can't run, in a sentence for people, or None if it can.

        `prefix` is the folder of the installed agents on this machine.
        """
        ...

    def mounts(self, prefix: Path) -> Mapping[str, Path]:
        """Return what the sandbox must show read-only: the path inside, and the one outside."""
        ...

    def command(self, turn: Turn) -> Command:
        """Return the command of one turn."""
        ...

    def parser(self) -> Parser:
        """Return a parser for the output of one turn."""
        ...


def model_takes_images(model: str) -> bool:
    """Return whether a model can look at images, as far as is known."""
    return _WITHOUT_IMAGES.match(model) is None


def environment(**more: str) -> dict[str, str]:
    """Return the environment of every agent, with `more`."""
    return {
        "HOME": HOME_INSIDE,
        "PATH": f"/usr/local/bin:/usr/bin:/bin:{Path(PYTHON_INSIDE).parent}",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONDONTWRITEBYTECODE": "1",  # compiled files are no part of a change
        "TOLLGATE_OUTPUT": OUTPUT_INSIDE,
        **more,
    }


def with_output(prompt: str) -> bytes:
    """Return the prompt as standard input, with a sentence about files for people."""
    told = (
        f"If you make files for the people who read your answer, such as screenshots or logs, put "
        f"them into the folder {OUTPUT_INSIDE}. They are not part of the repository."
    )
    return f"{prompt}\n\n{told}".encode("utf-8", "replace")


def our_program(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line of one of our own programs, whose folder `our_mounts` shows.

    Python ignores its environment and the repository's modules (`-I`).
    """
    return (PYTHON_INSIDE, "-I", f"{PROGRAMS_INSIDE}/{name}", *arguments)


def our_mounts() -> dict[str, Path]:
    """Return what the sandbox must show for our own programs."""
    return {PROGRAMS_INSIDE: _PROGRAMS}


def not_installed(title: str, name: str) -> str:
    """Return the sentence that says how to install an agent of `make agents`."""
    return f"{title} is not installed here. An operator can install it: make agents AGENTS={name}"
