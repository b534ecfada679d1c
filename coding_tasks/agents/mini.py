"""mini-swe-agent, run by our own `inside/mini_turn.py`: https://mini-swe-agent.com."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coding_tasks.agents.description import (
    AGENTS_INSIDE,
    GatewayAPI,
    Parser,
    Turn,
    environment,
    not_installed,
    our_mounts,
    our_program,
    with_output,
)
from coding_tasks.agents.event_lines import EventLines
from coding_tasks.sandbox.command import HOME_INSIDE, Command

_PACKAGES = f"{AGENTS_INSIDE}/mini"
_RETRIES = 12
"""Its waits grow to a minute, so calls that fail are repeated for about seven minutes."""


@dataclass(frozen=True)
class MiniSweAgent:
    """See `CodingAgent`. It has no conversation to continue, and reads no `AGENTS.md`."""

    name: str = "mini"
    title: str = "mini-swe-agent"
    api: GatewayAPI = GatewayAPI.CHAT_COMPLETIONS
    resumes: bool = False
    takes_images: bool = True
    session_directories: tuple[str, ...] = ()

    def why_missing(self, prefix: Path) -> str | None:
        """See `CodingAgent.why_missing`."""
        found = (prefix / "mini" / "minisweagent").is_dir()
        return None if found else not_installed(self.title, self.name)

    def mounts(self, prefix: Path) -> Mapping[str, Path]:
        """Return its packages, and our program that runs it."""
        return {_PACKAGES: prefix / "mini", **our_mounts()}

    def command(self, turn: Turn) -> Command:
        """Return our program's command line, with the prompt on standard input."""
        argv = our_program(
            "mini_turn.py",
            f"--packages={_PACKAGES}",
            f"--model=openai/{turn.model}",
            f"--traceparent={turn.traceparent}",
            f"--steps={turn.budget.steps}",
            f"--seconds={turn.budget.seconds}",
            *(f"--image={path}" for path in turn.images),
        )
        variables = environment(
            OPENAI_API_BASE=f"{turn.base_url}/v1",
            OPENAI_API_KEY=turn.token,
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            MSWEA_CONFIGURED="true",
            MSWEA_COST_TRACKING="ignore_errors",
            MSWEA_GLOBAL_CONFIG_DIR=f"{HOME_INSIDE}/.mini",
            MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT=str(_RETRIES),
            MSWEA_SILENT_STARTUP="1",
        )
        return Command(argv, variables, with_output(turn.prompt))

    def parser(self) -> Parser:
        """Return a parser of our own events."""
        return EventLines()
