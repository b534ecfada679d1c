"""The agents that there are."""

import re
from collections.abc import Mapping, Sequence

from coding_tasks.agents.claude import ClaudeCode
from coding_tasks.agents.codex import Codex
from coding_tasks.agents.description import CodingAgent
from coding_tasks.agents.generic import GenericCommand
from coding_tasks.agents.mini import MiniSweAgent
from coding_tasks.agents.small import SmallAgent

DEFAULT = "small"
SHIPPED: tuple[CodingAgent, ...] = (SmallAgent(), ClaudeCode(), Codex(), MiniSweAgent())
_NAME = re.compile(r"[a-z][a-z0-9-]{1,30}")


def registry(commands: Mapping[str, Sequence[str]] | None = None) -> dict[str, CodingAgent]:
    """Return the agents by name: the shipped ones, and the operator's own commands.

    Raises `ValueError` if a command is empty, or if its name is taken or has other characters than
    a mention may name.
    """
    agents = {agent.name: agent for agent in SHIPPED}
    for name, argv in (commands or {}).items():
        if not _NAME.fullmatch(name) or name in agents:
            raise ValueError(f"an agent cannot have the name {name!r}")
        if not argv or not all(isinstance(argument, str) for argument in argv):
            raise ValueError(f"the command of the agent {name} must be a list of texts")
        agents[name] = GenericCommand(name, tuple(argv))
    return agents
