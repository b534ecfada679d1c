"""What is known about a turn from its events so far: for heartbeats, the thread and resuming."""

import json
from dataclasses import dataclass

from coding_tasks.agents.events import (
    Answer,
    CommandRun,
    Event,
    Failure,
    FileEdited,
    Message,
    SessionStarted,
    TokensUsed,
    ToolUsed,
    clean,
)

_MOST_ACTION = 200


@dataclass
class Progress:
    """Adds up events. `steps` counts commands, edits and other tools; tokens are as told."""

    steps: int = 0
    last_action: str = ""
    session: str | None = None
    answer: str | None = None
    complete: bool = False
    failure: str | None = None
    said: str = ""
    input_tokens: int = 0
    output_tokens: int = 0

    def add(self, event: Event) -> None:
        """Take one event into account."""
        match event:
            case SessionStarted(id):
                self.session = id or self.session
            case CommandRun(command):
                self._act(f"runs {command}")
            case FileEdited(path):
                self._act(f"edits {path}")
            case ToolUsed(name, detail):
                self._act(f"{name} {_values(detail)}".strip())
            case Message(text):
                self.said = text or self.said
                self.last_action = self.last_action or _one_line(text)
            case TokensUsed(input, output):
                self.input_tokens += input
                self.output_tokens += output
            case Answer(text, complete):
                self.answer, self.complete = text, complete
            case Failure(text):
                self.failure = text
            case _:
                pass

    def _act(self, action: str) -> None:
        self.steps += 1
        self.last_action = _one_line(action)


def _values(detail: str) -> str:
    """Return a tool's arguments for people: only the values, if they are a JSON object."""
    try:
        arguments = json.loads(detail)
    except (ValueError, RecursionError):
        return detail
    if not isinstance(arguments, dict):
        return detail
    return " ".join(str(each) for each in arguments.values() if isinstance(each, str | int))


def _one_line(text: str) -> str:
    return clean(" ".join(text.split()), _MOST_ACTION)
