"""The agent worker's settings: addresses and folders, and no secret."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environs import Env, validate

from coding_tasks.sandbox import choice
from coding_tasks.sandbox.choice import Choice


@dataclass(frozen=True)
class Settings:
    """What the agent worker reads from its environment. `.env.example` describes each variable."""

    task_queue: str
    exchange: Path
    installations: Path
    most_turns: int
    sandbox: Choice = field(default_factory=Choice)
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    log_format: str = "text"


def from_environment() -> Settings:
    """Return the settings. Raises `environs.EnvValidationError`, which names a wrong variable."""
    env = Env()
    return Settings(
        task_queue=env.str("TEMPORAL_TASK_QUEUE", "tollgate"),
        exchange=Path(env.str("AGENT_EXCHANGE_DIRECTORY")),
        installations=Path(env.str("AGENTS_DIRECTORY", ".agents")).absolute(),
        most_turns=env.int("AGENT_TURNS_AT_ONCE", 20),
        sandbox=choice.from_environment(),
        commands=commands_of(env.json("AGENT_COMMANDS", {})),
        log_format=env.str("LOG_FORMAT", "text", validate=validate.OneOf(("text", "json"))),
    )


def commands_of(value: Any) -> dict[str, tuple[str, ...]]:
    """Return the operator's agents: a JSON object of lists, as in `{"mine": ["program", "-q"]}`.

    Raises `ValueError`.
    """
    if not isinstance(value, dict) or not all(isinstance(argv, list) for argv in value.values()):
        raise ValueError('Write a JSON object of lists, such as {"mine": ["program", "-q"]}.')
    return {name: tuple(map(str, argv)) for name, argv in value.items()}
