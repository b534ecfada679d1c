"""Any other command: its command line comes from the settings, and its output is the answer."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coding_tasks.agents.description import AGENTS_INSIDE, GatewayAPI, Parser, Turn, environment
from coding_tasks.agents.events import MOST_ANSWER, Answer, Event, Message, clean
from coding_tasks.sandbox.command import Command

_PLACEHOLDER = re.compile(r"\{(prompt|model|base_url)\}")


@dataclass(frozen=True)
class GenericCommand:
    """See `CodingAgent`.

    `argv` may contain `{prompt}`, `{model}` and `{base_url}`. Without `{prompt}` the prompt comes
    on standard input. The environment has the address and the token under the names that the SDKs
    of Anthropic and OpenAI read. If the folder of agents has a folder of this name, the command
    sees it as `/opt/agents/NAME`.
    """

    name: str
    argv: tuple[str, ...]
    api: GatewayAPI = GatewayAPI.MESSAGES
    resumes: bool = False
    takes_images: bool = False
    session_directories: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Its name."""
        return self.name

    def why_missing(self, prefix: Path) -> str | None:
        """See `CodingAgent.why_missing`. Programs are the host's, or below `/opt/agents/NAME`."""
        program = self.argv[0]
        own = f"{AGENTS_INSIDE}/{self.name}/"
        if program.startswith(own):
            found = (prefix / self.name / program.removeprefix(own)).exists()
        else:
            found = shutil.which(program, path=environment()["PATH"]) is not None
        return None if found else f"The program of the agent {self.name} is missing: {program}"

    def mounts(self, prefix: Path) -> Mapping[str, Path]:
        """Return the agent's own folder, if there is one."""
        folder = prefix / self.name
        return {f"{AGENTS_INSIDE}/{self.name}": folder} if folder.is_dir() else {}

    def command(self, turn: Turn) -> Command:
        """Return the command line with its placeholders filled in."""
        values = {"prompt": turn.prompt, "model": turn.model, "base_url": turn.base_url}
        takes_prompt = any("{prompt}" in argument for argument in self.argv)
        return Command(
            tuple(_PLACEHOLDER.sub(lambda m: values[m[1]], argument) for argument in self.argv),
            environment(
                ANTHROPIC_BASE_URL=turn.base_url,
                ANTHROPIC_AUTH_TOKEN=turn.token,
                OPENAI_BASE_URL=f"{turn.base_url}/v1",
                OPENAI_API_KEY=turn.token,
                TOLLGATE_MODEL=turn.model,
                TRACEPARENT=turn.traceparent,
            ),
            b"" if takes_prompt else turn.prompt.encode("utf-8", "replace"),
        )

    def parser(self) -> Parser:
        """Return a parser that collects the output."""
        return _Output()


class _Output:
    """See `Parser`. Every line is a message, and all together are the answer."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0

    def events(self, line: bytes) -> Sequence[Event]:
        """Return the line as a message."""
        text = clean(line.decode("utf-8", "replace"))
        if self._size <= MOST_ANSWER:
            self._lines.append(text)
            self._size += len(text) + 1
        return [Message(text)] if text.strip() else ()

    def end(self) -> Sequence[Event]:
        """Return the answer, unless the command wrote nothing."""
        text = "\n".join(self._lines).strip()
        return [Answer(text)] if text else ()
