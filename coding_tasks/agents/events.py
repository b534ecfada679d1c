"""What an agent reports while it works: typed events for progress and the transcript.

Texts come from agents, models and repositories, so they are untrusted. Every event is cleaned and
bounded when it is made: no control characters, no terminal escapes, no lone surrogates, and at most
`MOST_TEXT` characters (`MOST_ANSWER` for the answer).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

MOST_TEXT = 4_000
MOST_ANSWER = 40_000
MOST_TOKENS = 10**12
SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
MASK = "•••"
_CUT = "\n… (cut)"
# CSI, OSC and the shorter escape sequences of ECMA-48.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]"
)
# Controls except tab and newline, the marks that reorder text, and lone surrogates.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: object, most: int = MOST_TEXT) -> str:
    """Return the text without escapes and controls, and not longer than `most` characters."""
    raw = text if isinstance(text, str) else ""
    shown = _UNWANTED.sub("", _ESCAPES.sub("", raw[: 2 * most].replace("\r\n", "\n")))
    if len(shown) > most or len(raw) > 2 * most:
        return shown[: most - len(_CUT)] + _CUT
    return shown


@dataclass(frozen=True)
class Event:
    """One thing that an agent reported. `kind` is its name in JSON."""

    kind: ClassVar[str] = ""
    most: ClassVar[int] = MOST_TEXT

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is str:
                object.__setattr__(self, field.name, clean(value, self.most))
            elif field.type is bool:
                object.__setattr__(self, field.name, value is True)
            elif field.type is int:
                number = value if isinstance(value, int) and not isinstance(value, bool) else 0
                object.__setattr__(self, field.name, min(max(number, 0), MOST_TOKENS))


@dataclass(frozen=True)
class SessionStarted(Event):
    """The agent's name for this conversation, which a later turn passes to continue it.

    It is empty if the agent wrote a name that can't be an argument of its command line.
    """

    kind: ClassVar[str] = "session"
    id: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not SESSION_ID.fullmatch(self.id):
            object.__setattr__(self, "id", "")


@dataclass(frozen=True)
class Message(Event):
    """Something the model wrote on the way."""

    kind: ClassVar[str] = "message"
    text: str


@dataclass(frozen=True)
class CommandRun(Event):
    """The agent runs a command."""

    kind: ClassVar[str] = "command"
    command: str


@dataclass(frozen=True)
class FileEdited(Event):
    """The agent wrote or changed a file. The path is as the agent wrote it."""

    kind: ClassVar[str] = "edit"
    path: str


@dataclass(frozen=True)
class ToolUsed(Event):
    """The agent used another tool, such as a search."""

    kind: ClassVar[str] = "tool"
    name: str
    detail: str = ""


@dataclass(frozen=True)
class ToolResult(Event):
    """What a command, an edit or another tool returned."""

    kind: ClassVar[str] = "result"
    text: str
    failed: bool = False


@dataclass(frozen=True)
class TokensUsed(Event):
    """Tokens since the last such event, as the agent counts them. Our own ledger decides."""

    kind: ClassVar[str] = "tokens"
    input: int = 0
    output: int = 0
    cached: int = 0


@dataclass(frozen=True)
class Answer(Event):
    """What the agent says at the end of its turn, for the thread.

    `complete` is false if the agent ended because its budget was nearly used.
    """

    kind: ClassVar[str] = "answer"
    most: ClassVar[int] = MOST_ANSWER
    text: str
    complete: bool = True


@dataclass(frozen=True)
class Failure(Event):
    """What went wrong, in the agent's words.

    Never decide about credits from it: agents lose or reword the gateway's refusals. Our own ledger
    says whether credits were used up.
    """

    kind: ClassVar[str] = "error"
    text: str
    reason: str = ""


_KINDS: Mapping[str, type[Event]] = {
    event.kind: event
    for event in (
        SessionStarted,
        Message,
        CommandRun,
        FileEdited,
        ToolUsed,
        ToolResult,
        TokensUsed,
        Answer,
        Failure,
    )
}


def to_json(event: Event) -> dict[str, Any]:
    """Return the event as a JSON object, with its kind in `type`."""
    return {"type": event.kind, **asdict(event)}


def from_json(value: object) -> Event | None:
    """Return the event that `to_json` wrote, or None if it is not one."""
    if not isinstance(value, Mapping):
        return None
    kind = value.get("type")
    event = _KINDS.get(kind) if isinstance(kind, str) else None
    if event is None:
        return None
    try:
        return event(**{f.name: value[f.name] for f in fields(event) if f.name in value})
    except TypeError:  # a field without a default is missing
        return None


def mask(event: Event, secrets: Iterable[str]) -> Event:
    """Return the event with every secret replaced by dots."""
    hidden = [secret for secret in secrets if secret]
    changed: dict[str, str] = {}
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(value, str) and any(secret in value for secret in hidden):
            for secret in hidden:
                value = value.replace(secret, MASK)
            changed[field.name] = value
    return replace(event, **changed) if changed else event
