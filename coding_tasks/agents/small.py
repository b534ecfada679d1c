"""Tollgate's own small agent: needs nothing but Python. `inside/small_agent.py` is the program."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coding_tasks.agents.description import (
    GatewayAPI,
    Parser,
    Turn,
    environment,
    our_mounts,
    our_program,
)
from coding_tasks.agents.event_lines import EventLines
from coding_tasks.sandbox.command import Command


@dataclass(frozen=True)
class SmallAgent:
    """See `CodingAgent`. It keeps to the turn's budget and always ends with an answer."""

    name: str = "small"
    title: str = "The small agent"
    api: GatewayAPI = GatewayAPI.MESSAGES
    resumes: bool = True
    takes_images: bool = True
    session_directories: tuple[str, ...] = (".tollgate-agent",)

    def why_missing(self, prefix: Path) -> str | None:
        """Return None: it comes with Tollgate."""
        return None

    def mounts(self, prefix: Path) -> Mapping[str, Path]:
        """Return the folder of its program."""
        return our_mounts()

    def command(self, turn: Turn) -> Command:
        """Return the program's command line, with the prompt on standard input."""
        options = {
            "--base-url": turn.base_url,
            "--model": turn.model,
            "--steps": str(turn.budget.steps),
            "--tokens": str(turn.budget.tokens),
            "--seconds": str(turn.budget.seconds),
            "--trace-id": turn.trace_id,
            "--session": turn.session or "",
        }
        arguments = [f"{name}={value}" for name, value in options.items()]
        arguments += [f"--image={path}" for path in turn.images]
        return Command(
            our_program("small_agent.py", *arguments),
            environment(TOLLGATE_TOKEN=turn.token, TOLLGATE_CALL_KEY=turn.call_key or turn.token),
            turn.prompt.encode("utf-8", "replace"),
        )

    def parser(self) -> Parser:
        """Return a parser of our own events."""
        return EventLines()
