"""The agent worker's settings: addresses and folders, and no secret."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from environs import Env


@dataclass(frozen=True)
class Settings:
    """What the agent worker reads from its environment. `.env.example` describes each variable."""

    exchange: Path
    installations: Path
    most_turns: int
    sandbox_uid: int
    task_queue: str = "tollgate"
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def from_environment() -> Settings:
    """Return the settings. Raises `environs.EnvValidationError`, which names a wrong variable."""
    env = Env()
    return Settings(
        exchange=Path(env.str("AGENT_EXCHANGE_DIRECTORY")),
        installations=Path(env.str("AGENTS_DIRECTORY", ".agents")).absolute(),
        most_turns=env.int("AGENT_TURNS_AT_ONCE", 20),
        sandbox_uid=env.int("SANDBOX_UID", 64_646),
        commands={
            name: tuple(shlex.split(line))
            for name, line in env.dict("AGENT_COMMANDS", {}, delimiter=";").items()
        },
    )
