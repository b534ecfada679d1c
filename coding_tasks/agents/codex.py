"""OpenAI's Codex CLI, run once for each turn: https://developers.openai.com/codex/noninteractive."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coding_tasks.agents.description import (
    AGENTS_INSIDE,
    GatewayAPI,
    Parser,
    Turn,
    environment,
    not_installed,
    with_output,
)
from coding_tasks.agents.events import (
    Answer,
    CommandRun,
    Event,
    Failure,
    FileEdited,
    Message,
    SessionStarted,
    TokensUsed,
    ToolResult,
    ToolUsed,
)
from coding_tasks.agents.lines import compact, json_object, part, parts
from coding_tasks.sandbox.command import Command

_RETRIES = 11
"""Its waits double from 0.2 s, so calls that fail are repeated for about six minutes."""


@dataclass(frozen=True)
class Codex:
    """See `CodingAgent`.

    It replaces the text of most 429s by its own ("Quota exceeded"), so its output does not say
    whether credits are used up.
    """

    name: str = "codex"
    title: str = "Codex"
    api: GatewayAPI = GatewayAPI.RESPONSES
    resumes: bool = True
    takes_images: bool = True
    session_directories: tuple[str, ...] = (".codex/sessions",)

    def why_missing(self, prefix: Path) -> str | None:
        """See `CodingAgent.why_missing`."""
        found = (prefix / "codex" / "bin" / "codex").exists()
        return None if found else not_installed(self.title, self.name)

    def mounts(self, prefix: Path) -> Mapping[str, Path]:
        """Return its installation."""
        return {f"{AGENTS_INSIDE}/codex": prefix / "codex"}

    def command(self, turn: Turn) -> Command:
        """Return the command line, with the prompt on standard input.

        Its own sandbox can't be made inside ours, so it is switched off. Configuration by options
        wins over what an earlier turn may have written into the home. A repository's `.codex/` is
        not read, because no project is trusted.
        """
        provider = {
            "name": "Tollgate",
            "base_url": f"{turn.base_url}/v1",
            "env_key": "TOLLGATE_TOKEN",
            "wire_api": "responses",
            "request_max_retries": _RETRIES,
            "stream_max_retries": _RETRIES,
            "http_headers": {"traceparent": turn.traceparent},
        }
        options = {
            "model_provider": "tollgate",
            "model_providers.tollgate": provider,
            "check_for_update_on_startup": False,
            "analytics.enabled": False,
            "web_search": "disabled",
        }
        argv = [
            f"{AGENTS_INSIDE}/codex/bin/codex",
            "exec",
            "--json",
            "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox",
            f"--model={turn.model}",
            *(f"--config={name}={_toml(value)}" for name, value in options.items()),
        ]
        if turn.session:
            argv += ["resume", turn.session]
        argv += [*(f"--image={path}" for path in turn.images), "-"]
        variables = environment(TOLLGATE_TOKEN=turn.token)
        variables["PATH"] = f"{AGENTS_INSIDE}/codex/path:{variables['PATH']}"
        return Command(tuple(argv), variables, with_output(turn.prompt))

    def parser(self) -> Parser:
        """Return a parser of `codex exec --json`."""
        return _ExecJson()


def _toml(value: object) -> str:
    """Return a value in TOML. Its strings, numbers and booleans are written like JSON's."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + "}"
    return json.dumps(value)


class _ExecJson:
    """See `Parser`. The last message of a turn that was completed is its answer."""

    def __init__(self) -> None:
        self._last = ""

    def events(self, line: bytes) -> Sequence[Event]:
        """Return what one event of the stream says."""
        said = json_object(line)
        match said.get("type"):
            case "thread.started":
                return [SessionStarted(said.get("thread_id", ""))]
            case "item.started":
                return _of_beginning(part(said, "item"))
            case "item.completed":
                return self._of_end(part(said, "item"))
            case "turn.completed":
                usage = part(said, "usage")
                names = ("input_tokens", "output_tokens", "cached_input_tokens")
                return [TokensUsed(*(usage.get(name, 0) for name in names)), Answer(self._last)]
            case "turn.failed":
                return [Failure(part(said, "error").get("message", ""), "turn failed")]
            case "error":
                return [Failure(said.get("message", ""))]
        return ()

    def end(self) -> Sequence[Event]:
        """Return nothing: the stream says how the turn ended."""
        return ()

    def _of_end(self, item: dict[str, Any]) -> Sequence[Event]:
        match item.get("type"):
            case "agent_message":
                message = Message(item.get("text", ""))
                self._last = Answer(item.get("text", "")).text
                return [message]
            case "command_execution":
                failed = item.get("exit_code") != 0
                return [ToolResult(item.get("aggregated_output", ""), failed)]
            case "file_change":
                return [FileEdited(change.get("path", "")) for change in parts(item, "changes")]
            case "error":  # a warning: the turn goes on
                return [Message(item.get("message", ""))]
        return ()


def _of_beginning(item: dict[str, Any]) -> Sequence[Event]:
    match item.get("type"):
        case "command_execution":
            return [CommandRun(item.get("command", ""))]
        case "mcp_tool_call" | "web_search" | "collab_tool_call" as kind:
            return [ToolUsed(kind, compact(item))]
    return ()
