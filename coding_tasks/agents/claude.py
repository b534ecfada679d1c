"""Claude Code, run once for each turn: https://docs.claude.com/en/docs/claude-code/cli-reference."""

from collections.abc import Iterator, Mapping, Sequence
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
from coding_tasks.agents.lines import compact, json_object, part, parts, text_of
from coding_tasks.sandbox.command import TREE_INSIDE, Command

_EDITS = frozenset({"Edit", "MultiEdit", "Write", "NotebookEdit"})
_MOST_OUTPUT = 16_000
"""Tokens of one answer. The gateway reserves what a call may cost; the default is twice this."""
_RETRIES = 15
"""Calls that fail are repeated for about six minutes. A denial of the gateway is not repeated."""


@dataclass(frozen=True)
class ClaudeCode:
    """See `CodingAgent`."""

    name: str = "claude"
    title: str = "Claude Code"
    api: GatewayAPI = GatewayAPI.MESSAGES
    resumes: bool = True
    takes_images: bool = True
    session_directories: tuple[str, ...] = (".claude/projects",)

    def why_missing(self, prefix: Path) -> str | None:
        """See `CodingAgent.why_missing`."""
        found = (prefix / "claude" / "bin" / "claude").exists()
        return None if found else not_installed(self.title, self.name)

    def mounts(self, prefix: Path) -> Mapping[str, Path]:
        """Return its installation."""
        return {f"{AGENTS_INSIDE}/claude": prefix / "claude"}

    def command(self, turn: Turn) -> Command:
        """Return the command line, with the prompt on standard input.

        Only the user's own settings are read. A repository's `.claude/settings.json` could run
        hooks and change the gateway's address, and its `.mcp.json` could start servers. Without a
        repository's settings its `CLAUDE.md` isn't read either, unless the tree is also an added
        directory whose memory is asked for. It reads the images that the prompt names by itself.
        """
        argv = [
            f"{AGENTS_INSIDE}/claude/bin/claude",
            "--print",
            "--setting-sources=user",
            "--strict-mcp-config",
            f"--add-dir={TREE_INSIDE}",
            "--dangerously-skip-permissions",
            "--output-format=stream-json",
            "--verbose",
            f"--model={turn.model}",
        ]
        if turn.session:
            argv.append(f"--resume={turn.session}")
        variables = environment(
            ANTHROPIC_BASE_URL=turn.base_url,
            ANTHROPIC_AUTH_TOKEN=turn.token,
            ANTHROPIC_CUSTOM_HEADERS=f"traceparent: {turn.traceparent}",
            # It chooses a small model for side tasks, which the project may not be allowed to use.
            ANTHROPIC_DEFAULT_HAIKU_MODEL=turn.model,
            CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD="1",
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            CLAUDE_CODE_MAX_OUTPUT_TOKENS=str(_MOST_OUTPUT),
            CLAUDE_CODE_MAX_RETRIES=str(_RETRIES),
            DISABLE_AUTOUPDATER="1",
            IS_SANDBOX="1",
        )
        return Command(tuple(argv), variables, with_output(turn.prompt))

    def parser(self) -> Parser:
        """Return a parser of `--output-format stream-json`."""
        return _StreamJson()


_ITS_OWN = "<synthetic>"
"""The model of messages that Claude Code wrote itself, such as errors of the API."""


class _StreamJson:
    """See `Parser`."""

    def events(self, line: bytes) -> Sequence[Event]:
        """Return what one message of the stream says."""
        said = json_object(line)
        match said.get("type"):
            case "system" if said.get("subtype") == "init":
                return [SessionStarted(said.get("session_id", ""))]
            case "assistant" if part(said, "message").get("model") == _ITS_OWN:
                return ()
            case "assistant" | "user":
                return list(_of_blocks(parts(part(said, "message"), "content")))
            case "result":
                return _of_result(said)
        return ()

    def end(self) -> Sequence[Event]:
        """Return nothing: the stream says its result."""
        return ()


def _of_blocks(blocks: list[dict[str, Any]]) -> Iterator[Event]:
    for block in blocks:
        match block.get("type"):
            case "text":
                yield Message(block.get("text", ""))
            case "tool_use":
                yield _of_tool(str(block.get("name", "")), part(block, "input"))
            case "tool_result":
                yield ToolResult(text_of(block.get("content")), block.get("is_error") is True)


def _of_tool(name: str, given: dict[str, Any]) -> Event:
    if name == "Bash":
        return CommandRun(given.get("command", ""))
    if name in _EDITS:
        return FileEdited(given.get("file_path") or given.get("notebook_path") or "")
    return ToolUsed(name, compact(given))


def _of_result(said: dict[str, Any]) -> list[Event]:
    usage = part(said, "usage")
    cached = usage.get("cache_read_input_tokens")
    sent = [usage.get("input_tokens"), usage.get("cache_creation_input_tokens"), cached]
    tokens = TokensUsed(
        sum(number for number in sent if isinstance(number, int)),
        usage.get("output_tokens", 0),
        cached if isinstance(cached, int) else 0,
    )
    text = said.get("result")
    if said.get("is_error") or said.get("subtype") != "success" or not isinstance(text, str):
        reason = said.get("subtype", "")
        return [tokens, Failure(text or str(reason), reason)]
    return [tokens, Answer(text)]
