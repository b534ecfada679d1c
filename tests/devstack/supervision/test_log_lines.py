"""The development stack shows the JSON of our own programs as text."""

import json

import pytest

from devstack.supervision.log_lines import readable


def test_an_event_is_shown_with_its_level_and_fields():
    line = {"timestamp": "2026-11-30T20:00:00Z", "level": "warning", "logger": "workflows.notices"}
    line |= {"event": "slack is slow", "method": "chat.postMessage", "seconds": 3.5, "why": "a b"}
    [shown] = readable(json.dumps(line))
    assert shown == 'warning slack is slow method=chat.postMessage seconds=3.5 why="a b"'


def test_a_traceback_follows_in_lines_of_its_own():
    line = {"level": "error", "event": "it failed", "exception": "Traceback\n  ValueError: x"}
    assert readable(json.dumps(line)) == ["error   it failed", "Traceback", "  ValueError: x"]


def test_a_line_without_a_level_is_information():
    assert readable('{"event": "request", "status": 200}') == ["info    request status=200"]


@pytest.mark.parametrize(("level", "colour"), [("error", 31), ("warning", 33), ("debug", 90)])
def test_levels_have_colours_on_a_terminal(level, colour):
    [shown] = readable(json.dumps({"level": level, "event": "x"}), colour=True)
    assert shown == f"\033[{colour}m{level:<7} x\033[0m"


@pytest.mark.parametrize(
    "line", ["", "[INFO] Listening", "{", "{}", "[1]", '{"event"', "{" * 100_000, "null"]
)
def test_lines_of_other_programs_stay_as_they_are(line):
    assert readable(line) == [line]


def test_no_field_can_begin_a_line_or_move_the_cursor():
    [shown] = readable(json.dumps({"event": "a\nb\033[2J", "text": "x\n\033[2J"}))
    assert shown == 'info    a\\nb\\u001b[2J text="x\\n\\u001b[2J"'
