"""Events are clean and bounded, survive JSON and hide secrets. Also: lines and progress."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_tasks.agents import events
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
    clean,
    from_json,
    mask,
    to_json,
)
from coding_tasks.agents.lines import LONGEST_LINE, json_object
from coding_tasks.agents.progress import Progress

ALL = [
    SessionStarted("abc-1"),
    Message("text"),
    CommandRun("ls"),
    FileEdited("a.py"),
    ToolUsed("search", "x"),
    ToolResult("out", failed=True),
    TokensUsed(1, 2, 3),
    Answer("done", complete=False),
    Failure("broken", "why"),
]


@pytest.mark.parametrize("event", ALL, ids=lambda event: event.kind)
def test_an_event_survives_json(event: Event) -> None:
    assert from_json(json.loads(json.dumps(to_json(event)))) == event


@pytest.mark.parametrize(
    "value", [None, [], {}, {"type": "x"}, {"type": []}, {"type": "message"}, {"type": "edit"}]
)
def test_anything_else_is_no_event(value: object) -> None:
    assert from_json(value) is None


def test_fields_of_wrong_types_are_empty() -> None:
    assert from_json({"type": "message", "text": 7}) == Message("")
    assert from_json({"type": "result", "text": "x", "failed": "yes"}) == ToolResult("x")
    assert from_json({"type": "tokens", "input": True, "output": -5, "cached": "x"}) == TokensUsed()
    assert from_json({"type": "tokens", "input": 10**30}) == TokensUsed(10**12)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jcleared", "cleared"),
        ("a\0b\x07c\x08d\x7f", "abcd"),
        ("a\u202eb\u2066c", "abc"),
        ("tab\there\r\nnext", "tab\there\nnext"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("✓ é", "✓ é"),
    ],
)
def test_escapes_and_controls_are_removed(raw: str, shown: str) -> None:
    assert Message(raw).text == shown


@given(st.text(), st.integers(20, 200))
def test_cleaned_text_is_bounded_and_can_be_stored(text: str, most: int) -> None:
    shown = clean(text * 20, most)
    assert len(shown) <= most
    assert "\0" not in shown
    assert "\x1b" not in shown
    shown.encode()


def test_a_long_text_says_that_it_was_cut() -> None:
    assert Message("x" * 1_000_000).text.endswith("… (cut)")
    assert len(Message("x" * 1_000_000).text) == events.MOST_TEXT
    assert len(Answer("x" * 1_000_000).text) == events.MOST_ANSWER


@pytest.mark.parametrize("session", ["--config=x", "../x", "a b", "", "x" * 101, "a\n"])
def test_a_session_that_could_be_an_option_is_dropped(session: str) -> None:
    assert SessionStarted(session).id == ""


def test_secrets_are_masked_in_every_text() -> None:
    secret = "phr_secret"
    for event in (
        Message(f"x {secret}"),
        CommandRun(f"curl -H {secret}"),
        FileEdited(secret),
        ToolUsed("read", secret),
        ToolResult(f"{secret} {secret}", failed=True),
        Answer(secret, complete=False),
        Failure(secret, secret),
    ):
        masked = mask(event, ["", secret])
        assert secret not in json.dumps(to_json(masked))
        assert type(masked) is type(event)
    assert mask(ALL[1], [secret]) is ALL[1]


# --- lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"text", b"[]", b"7", b"\xff\xfe", b"{"),
        *(b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5_000),
        b'{"a": "' + b"x" * LONGEST_LINE + b'"}',
    ],
    ids=range(10),
)
def test_a_line_without_an_object_is_empty(line: bytes) -> None:
    assert json_object(line) == {}


# --- progress -------------------------------------------------------------------------------------


def test_progress_adds_up() -> None:
    progress = Progress()
    for event in ALL:
        progress.add(event)
    progress.add(TokensUsed(10, 20))
    assert progress == Progress(
        steps=3,
        last_action="search x",
        session="abc-1",
        answer="done",
        said="text",
        complete=False,
        failure="broken",
        input_tokens=11,
        output_tokens=22,
    )


def test_the_last_action_is_one_short_line() -> None:
    progress = Progress()
    progress.add(CommandRun("echo one\necho two " + "x" * 1_000))
    assert progress.last_action.startswith("runs echo one echo two xxx")
    assert len(progress.last_action) <= 200


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ('{"pattern": "total", "path": "src", "more": {}}', "search total src"),
        ("total", "search total"),
        ("[1]", "search [1]"),
        ("{", "search {"),
    ],
)
def test_the_arguments_of_a_tool_are_shown_as_values(detail: str, shown: str) -> None:
    progress = Progress()
    progress.add(ToolUsed("search", detail))
    assert progress.last_action == shown


def test_a_session_that_was_dropped_does_not_replace_one() -> None:
    progress = Progress()
    progress.add(SessionStarted("abc"))
    progress.add(SessionStarted("--evil"))
    assert progress.session == "abc"
