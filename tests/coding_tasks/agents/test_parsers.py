"""Parsers read what the real agents printed, and survive whatever else a process prints."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_tasks.agents.description import CodingAgent
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
from coding_tasks.agents.generic import GenericCommand
from coding_tasks.agents.progress import Progress
from coding_tasks.agents.registry import SHIPPED, registry

Recorded = Callable[[str], list[bytes]]
ALL = [*SHIPPED, GenericCommand("other", ("cat",))]
each = pytest.mark.parametrize("agent", ALL, ids=lambda agent: agent.name)
RECORDED = ["small", "claude", "codex", "mini"]


def read(agent: CodingAgent, lines: list[bytes]) -> list[Event]:
    parser = agent.parser()
    return [event for line in lines for event in parser.events(line)] + list(parser.end())


def progress_of(events: list[Event]) -> Progress:
    progress = Progress()
    for event in events:
        progress.add(event)
    return progress


@pytest.mark.parametrize("name", RECORDED)
def test_an_edit_is_read(recorded: Recorded, name: str) -> None:
    events = read(registry()[name], recorded(f"{name}-edit.jsonl"))
    commands = [event.command for event in events if isinstance(event, CommandRun)]
    results = [event for event in events if isinstance(event, ToolResult)]
    assert any("--version" in command for command in commands)
    assert any("shop 1.0.0" in result.text for result in results)
    assert not any(result.failed for result in results)
    progress = progress_of(events)
    assert progress.answer is not None
    assert "I added the flag --version" in progress.answer
    assert progress.complete
    assert progress.failure is None
    assert progress.input_tokens > 100
    assert progress.output_tokens > 10
    assert (progress.session is None) == (name == "mini")
    assert any(isinstance(event, Message) for event in events)


@pytest.mark.parametrize("name", RECORDED)
def test_a_denial_is_read_as_a_failure(recorded: Recorded, name: str) -> None:
    events = read(registry()[name], recorded(f"{name}-denied.jsonl"))
    progress = progress_of(events)
    assert progress.answer is None
    assert progress.failure
    assert "credits" not in progress.said, "an API's error is told as the agent's last words"
    assert any(isinstance(event, Failure) for event in events)


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("what", ["edit", "denied"])
def test_a_recording_that_breaks_off_anywhere_is_read(
    recorded: Recorded, name: str, what: str
) -> None:
    lines = recorded(f"{name}-{what}.jsonl")
    for number, line in enumerate(lines):
        for end in range(0, len(line), max(1, len(line) // 40)):
            read(registry()[name], [*lines[:number], line[:end]])


HOSTILE = [
    b"",
    b"\0\xff\xfe",
    b"null",
    b"[]",
    b'"text"',
    b"{}",
    b'{"type": null}',
    b'{"type": []}',
    b'{"type": {"a": 1}}',
    b"{" * 100_000,
    b"[" * 100_000,
    b'{"type":' + b"9" * 10_000 + b"}",
    b'{"type": "message", "text": "\\ud800\\u0000\\u001b[31m"}',
    b'{"type": "assistant", "message": {"content": [1, null, {"type": "text"}, {"type": []}]}}',
    b'{"type": "assistant", "message": {"content": [{"type": "tool_use", "input": []}]}}',
    b'{"type": "user", "message": {"content": "text"}}',
    b'{"type": "result", "usage": {"input_tokens": "x", "output_tokens": null}}',
    b'{"type": "result", "subtype": 7, "result": 7}',
    b'{"type": "system", "subtype": "init", "session_id": ["x"]}',
    b'{"type": "thread.started", "thread_id": {"a": 1}}',
    b'{"type": "item.completed", "item": {"type": "file_change", "changes": 7}}',
    b'{"type": "item.completed", "item": {"type": "agent_message", "text": 7}}',
    b'{"type": "item.started", "item": {"type": "mcp_tool_call", "x": "\\ud800"}}',
    b'{"type": "turn.completed", "usage": {"input_tokens": 1e400}}',
    b'{"type": "turn.failed", "error": "text"}',
    b'{"type": "error", "message": {"a": 1}}',
    b'{"type": "answer", "text": ["x"]}',
    b'{"type": "tokens", "input": -1, "output": 1e99, "cached": true}',
    b'{"type": "message", "text": "' + b"x" * 5_000_000 + b'"}',
]


@each
def test_hostile_lines_never_raise_and_are_bounded(agent: CodingAgent) -> None:
    for event in read(agent, HOSTILE):
        assert len(json.dumps(event.__dict__)) < 300_000
        progress_of([event])


@each
@given(line=st.binary(max_size=300))
def test_random_bytes_never_raise(agent: CodingAgent, line: bytes) -> None:
    progress_of(read(agent, [line]))


ODD = [None, True, -1, 10**30, 1e99, float("nan"), "text", "\ud800\0", [], [None, 7, []], {}]
ODD += [[{"type": "text"}, {"type": []}], {"a": {"b": []}}, [{"path": 7}], "x" * 50_000]
VALUES = st.sampled_from(ODD)
TYPES = st.sampled_from(
    [
        "system",
        "assistant",
        "user",
        "result",
        "thread.started",
        "item.started",
        "item.completed",
        "turn.completed",
        "turn.failed",
        "error",
        "message",
        "command",
        "edit",
        "tokens",
        "answer",
    ]
)
FIELDS = st.sampled_from(
    [
        "message",
        "content",
        "usage",
        "result",
        "item",
        "error",
        "text",
        "session_id",
        "subtype",
        "command",
        "path",
        "input",
        "output",
        "changes",
        "input_tokens",
        "is_error",
        "thread_id",
    ]
)


@each
@given(kind=TYPES, fields=st.dictionaries(FIELDS, VALUES, max_size=6), inner=TYPES)
def test_known_lines_with_fields_of_any_type_never_raise(
    agent: CodingAgent, kind: str, fields: dict[str, object], inner: str
) -> None:
    for content in (fields, {**fields, "item": {**fields, "type": inner}}):
        progress_of(read(agent, [json.dumps({**content, "type": kind}).encode()]))


# --- what each vocabulary means -------------------------------------------------------------------


def one(name: str, line: dict[str, object]) -> list[Event]:
    return read(registry()[name], [json.dumps(line).encode()])


def test_claude_codes_tools_are_distinguished() -> None:
    def using(tool: str, **given: object) -> list[Event]:
        block = {"type": "tool_use", "id": "t", "name": tool, "input": given}
        return one("claude", {"type": "assistant", "message": {"content": [block]}})

    assert using("Bash", command="ls") == [CommandRun("ls")]
    assert using("Edit", file_path="/work/a.py") == [FileEdited("/work/a.py")]
    assert using("Write", file_path="/work/b.py") == [FileEdited("/work/b.py")]
    assert using("NotebookEdit", notebook_path="/work/c.ipynb") == [FileEdited("/work/c.ipynb")]
    assert using("Grep", pattern="x") == [ToolUsed("Grep", '{"pattern": "x"}')]


def test_claude_codes_turn_without_a_result_has_no_answer() -> None:
    ended = {"type": "result", "subtype": "error_max_turns", "is_error": True, "usage": {}}
    assert one("claude", ended) == [TokensUsed(), Failure("error_max_turns", "error_max_turns")]


def test_codex_answers_with_its_last_message() -> None:
    def message(text: str) -> bytes:
        item = {"id": "i", "type": "agent_message", "text": text}
        return json.dumps({"type": "item.completed", "item": item}).encode()

    usage = {"input_tokens": 3, "cached_input_tokens": 1, "output_tokens": 2}
    done = json.dumps({"type": "turn.completed", "usage": usage}).encode()
    events = read(registry()["codex"], [message("on the way"), message("the end"), done])
    assert events[-2:] == [TokensUsed(3, 2, 1), Answer("the end")]
    assert not any(isinstance(e, Answer) for e in read(registry()["codex"], [message("half")]))


def test_codexs_edits_and_warnings_are_read() -> None:
    changes = [{"path": "/work/a", "kind": "update"}, {"path": "/work/b", "kind": "add"}]
    edited = {"type": "file_change", "changes": changes, "status": "completed"}
    assert one("codex", {"type": "item.completed", "item": edited}) == [
        FileEdited("/work/a"),
        FileEdited("/work/b"),
    ]
    warning = {"type": "error", "message": "no metadata"}
    assert one("codex", {"type": "item.completed", "item": warning}) == [Message("no metadata")]


def test_codex_loses_the_text_of_a_refusal() -> None:
    """Codex prints this whatever the gateway said, so other code finds out about credits."""
    lost = {"type": "turn.failed", "error": {"message": "Quota exceeded. Check your plan"}}
    assert one("codex", lost) == [Failure("Quota exceeded. Check your plan", "turn failed")]


def test_a_session_that_an_agent_made_up_is_no_option() -> None:
    assert one("codex", {"type": "thread.started", "thread_id": "--config=x"}) == [
        SessionStarted("")
    ]


def test_a_commands_whole_output_is_its_answer() -> None:
    agent = registry({"other": ["cat"]})["other"]
    events = read(agent, [b"first", b"", b"\x1b[1msecond\x1b[0m"])
    assert events == [Message("first"), Message("second"), Answer("first\n\nsecond")]
    assert read(agent, []) == []
    assert read(agent, [b" "]) == []


def test_an_endless_output_is_bounded() -> None:
    parser = registry({"other": ["cat"]})["other"].parser()
    for _ in range(2_000):
        parser.events(b"x" * 1_000)
    [answer] = parser.end()
    assert isinstance(answer, Answer)
    assert len(answer.text) <= 40_000
