"""What the small agent's tools do, and refuse, in a real process with a scripted model."""

import os
import time
from pathlib import Path

import pytest

from coding_tasks.agents.inside.small_agent import MOST_OUTPUT
from tests.coding_tasks.agents.conftest import TOKEN, Agent, call
from tests.devstack.processes import wait_until_gone


def test_lists_files_without_gits_own(agent: Agent) -> None:
    ran = agent.use("list")
    assert ran.result.splitlines() == ["README.md", "shop/basket.py"]
    assert ran.one("tool") == {"type": "tool", "name": "list", "detail": "{}"}
    assert ran.status == 0


def test_lists_one_folder(agent: Agent) -> None:
    assert agent.use("list", path="shop").result == "shop/basket.py"


def test_list_says_when_there_are_more_files(agent: Agent) -> None:
    for number in range(600):
        (agent.tree / f"{number:03}.txt").touch()
    agent.model.script(call("list"), "done")
    agent.run()
    [block] = agent.bodies()[-1]["messages"][-1]["content"]
    lines = block["content"].splitlines()
    assert (lines[0], len(lines)) == ("000.txt", 501)
    assert lines[-1].startswith("[there may be more")


def test_searches_with_a_regular_expression(agent: Agent) -> None:
    (agent.tree / "binary").write_bytes(b"def total\0")
    (agent.tree / "big.py").write_bytes(b"def total\n" + b"x" * 1_000_001)
    (agent.tree / "link.py").symlink_to("shop/basket.py")
    assert agent.use("search", pattern=r"def \w+").result == "shop/basket.py:1: def total(prices):"
    assert agent.use("search", pattern="sum", path="shop/basket.py").result.startswith(
        "shop/basket.py:2:"
    )
    assert agent.use("search", pattern="nowhere").result == "[no match]"


def test_search_returns_at_most_a_hundred_matches(agent: Agent) -> None:
    (agent.tree / "many.txt").write_text("match\n" * 500)
    agent.model.script(call("search", pattern="match"), "done")
    agent.run()
    [block] = agent.bodies()[-1]["messages"][-1]["content"]
    assert len(block["content"].splitlines()) == 101


def test_a_wrong_regular_expression_is_reported_to_the_model(agent: Agent) -> None:
    ran = agent.use("search", pattern="(")
    assert ran.one("result")["failed"]
    assert ran.status == 0


def test_reads_a_whole_file(agent: Agent) -> None:
    assert agent.use("read", path="README.md").result == "# Web shop\n"


def test_reads_a_part_of_a_file(agent: Agent) -> None:
    (agent.tree / "lines").write_text("".join(f"line {n}\n" for n in range(1, 1_001)))
    assert agent.use("read", path="lines", start=10, lines=2).result == (
        "line 10\nline 11\n\n[there is more from line 12 on]"
    )
    assert agent.use("read", path="lines", start=1_000).result == "line 1000\n"


def test_reads_a_bounded_part_of_a_big_file(agent: Agent) -> None:
    with (agent.tree / "big").open("wb") as big:
        big.truncate(200_000_000)
        big.write(b"a line without an end " * 100_000)
    ran = agent.use("read", path="big")
    assert len(ran.result) < 5_000
    [block] = agent.bodies()[-1]["messages"][-1]["content"]
    assert len(block["content"]) < MOST_OUTPUT + 100


def test_does_not_show_a_binary_file(agent: Agent) -> None:
    (agent.tree / "picture").write_bytes(b"\x89PNG\0\0")
    assert agent.use("read", path="picture").result == "[a binary file]"


def test_reads_a_file_that_is_not_in_utf_8(agent: Agent) -> None:
    (agent.tree / "latin").write_bytes("é".encode("latin-1"))
    assert agent.use("read", path="latin").result == "�"


def test_writes_a_file_in_a_new_folder(agent: Agent) -> None:
    ran = agent.use("write", path="docs/new/page.md", text="# Page ✓\n")
    assert (agent.tree / "docs/new/page.md").read_text() == "# Page ✓\n"
    assert ran.one("edit") == {"type": "edit", "path": "docs/new/page.md"}


def test_edits_a_text_that_occurs_once(agent: Agent) -> None:
    ran = agent.use("edit", path="shop/basket.py", old="sum(prices)", new="sum(prices, 0)")
    assert (agent.tree / "shop/basket.py").read_text().endswith("return sum(prices, 0)\n")
    assert ran.one("edit")["path"] == "shop/basket.py"


@pytest.mark.parametrize("old", ["prices", "absent", ""])
def test_does_not_guess_which_text_to_edit(agent: Agent, old: str) -> None:
    before = (agent.tree / "shop/basket.py").read_text()
    ran = agent.use("edit", path="shop/basket.py", old=old, new="x")
    assert ran.one("result")["failed"]
    assert "must occur once" in ran.result
    assert (agent.tree / "shop/basket.py").read_text() == before
    assert ran.of("edit") == []


def test_an_edit_keeps_bytes_that_are_not_utf_8(agent: Agent) -> None:
    (agent.tree / "latin").write_bytes(b"\xe9 old\r\n")
    agent.use("edit", path="latin", old="old", new="new")
    assert (agent.tree / "latin").read_bytes() == b"\xe9 new\r\n"


ESCAPES = ["../secret", "/etc/passwd", "shop/../../secret", "link", "folder/secret", "a\0b", "loop"]


@pytest.fixture
def secret(agent: Agent, tmp_path: Path) -> Path:
    """Return a file outside the tree, to which links in the tree lead."""
    outside = tmp_path / "secret"
    outside.write_text("a secret\n")
    (agent.tree / "link").symlink_to(outside)
    (agent.tree / "folder").symlink_to(tmp_path)
    (agent.tree / "loop").symlink_to("loop")
    return outside


@pytest.mark.parametrize("path", ESCAPES)
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("read", {}),
        ("write", {"text": "overwritten"}),
        ("edit", {"old": "a secret", "new": "overwritten"}),
    ],
)
def test_a_path_outside_the_repository_is_refused(
    agent: Agent, secret: Path, tool: str, arguments: dict[str, str], path: str
) -> None:
    ran = agent.use(tool, path=path, **arguments)
    assert ran.one("result")["failed"], ran.result
    assert "a secret" not in ran.result
    assert secret.read_text() == "a secret\n"
    assert ran.one("answer")["text"] == "done"


@pytest.mark.parametrize(("tool", "arguments"), [("list", {}), ("search", {"pattern": "secret"})])
def test_folders_outside_are_neither_listed_nor_searched(
    agent: Agent, secret: Path, tool: str, arguments: dict[str, str]
) -> None:
    assert "a secret" not in agent.use(tool, path="folder", **arguments).result
    assert "a secret" not in agent.use(tool, **arguments).result


def test_a_link_that_stays_inside_is_followed(agent: Agent) -> None:
    (agent.tree / "link").symlink_to("README.md")
    assert agent.use("read", path="link").result == "# Web shop\n"


@pytest.mark.parametrize(
    "path", [".git/hooks/pre-commit", "shop/../.git/config", "sub/.git/config"]
)
def test_the_files_of_git_are_refused(agent: Agent, path: str) -> None:
    ran = agent.use("write", path=path, text="#!/bin/sh\n")
    assert ran.one("result")["failed"]
    assert (agent.tree / ".git/config").read_text() == "[core]\n"
    assert not (agent.tree / path).exists() or path.endswith("git/config")


@pytest.mark.parametrize("path", ["pipe", "shop", "absent"])
def test_reads_regular_files_only(agent: Agent, path: str) -> None:
    os.mkfifo(agent.tree / "pipe")
    assert "is not a file" in agent.use("read", path=path).result


def test_runs_a_command_and_reports_its_status(agent: Agent) -> None:
    ran = agent.use("run", command="echo out; echo err >&2; exit 3")
    assert ran.one("command")["command"].startswith("echo out")
    assert ran.result == "out\nerr\n\n[exit status 3]"


def test_a_command_gets_no_token(agent: Agent) -> None:
    ran = agent.use("run", command="env; pwd")
    assert TOKEN not in ran.result
    assert str(agent.tree) in ran.result


def test_a_command_that_takes_too_long_is_ended_with_its_children(agent: Agent) -> None:
    began = time.monotonic()
    ran = agent.use("run", command="sleep 1000 & echo $!; wait", seconds=1)
    assert "it took too long and was ended" in ran.result
    assert time.monotonic() - began < 60
    wait_until_gone([int(ran.result.split()[0])])


def test_what_a_command_leaves_in_the_background_is_ended(agent: Agent) -> None:
    ran = agent.use("run", command="sleep 1000 & echo $!")
    assert ran.result.endswith("[exit status 0]")
    wait_until_gone([int(ran.result.split()[0])])


def test_a_long_output_is_cut_in_the_middle(agent: Agent) -> None:
    agent.model.script(call("run", command="echo begin; seq 1000000; echo end"), "done")
    agent.run()
    [block] = agent.bodies()[-1]["messages"][-1]["content"]
    assert "characters left out" in block["content"]
    assert block["content"].endswith("1000000\nend\n\n[exit status 0]")
    assert len(block["content"]) <= MOST_OUTPUT + 100


def test_binary_output_is_shown_as_far_as_it_is_text(agent: Agent) -> None:
    ran = agent.use("run", command=r"printf '\377\000ok'")
    assert ran.result.startswith("�\0ok")


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("no_such_tool", {}),
        ("read", {}),
        ("read", {"path": 7}),
        ("read", {"path": "README.md", "start": "x"}),
        ("read", {"path": "README.md", "start": -5}),
        ("run", {"command": "true", "seconds": "soon"}),
        ("list", {"unknown": 1}),
    ],
)
def test_a_malformed_call_is_reported_to_the_model(
    agent: Agent, tool: str, arguments: dict[str, object]
) -> None:
    ran = agent.use(tool, **arguments)
    assert ran.one("result")["failed"]
    assert (ran.status, ran.errors) == (0, "")


def test_a_file_name_that_is_not_utf_8_does_not_end_the_turn(agent: Agent) -> None:
    with open(os.fsencode(agent.tree) + b"/caf\xe9", "wb") as strange:
        strange.write(b"found\n")
    assert "caf?" in agent.use("list").result
    assert "caf?:1: found" in agent.use("search", pattern="found").result
