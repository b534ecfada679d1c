"""The rules of the folder: what it may import, and what its programs need to run alone."""

import ast
import sys
from pathlib import Path

import pytest

from coding_tasks.agents import description
from tests.coding_tasks.agents.conftest import PROGRAM

ROOM = Path(description.__file__).parent
OURS = "coding_tasks.agents"
FILES = sorted(ROOM.rglob("*.py"))
TOOLS = PROGRAM.with_name("small_agent_tools.py")
SMALL = [PROGRAM, TOOLS]


def imports(file: Path) -> set[str]:
    """Return the modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_description_imports_nothing_but_the_sandboxes_command(file: Path) -> None:
    for name in imports(file):
        standard = name.partition(".")[0] in sys.stdlib_module_names or name == TOOLS.stem
        allowed = name.startswith(f"{OURS}.") or name == "coding_tasks.sandbox.command"
        runs_alone = file.parent.name == "inside"
        assert standard or (allowed and not runs_alone) or name.startswith("minisweagent."), name


@pytest.mark.parametrize("file", SMALL, ids=lambda file: file.name)
def test_the_small_agent_is_small_and_needs_python_3_9_only(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 400
    ast.parse(text, feature_version=(3, 9))
    names = {name.partition(".")[0] for name in imports(file)}
    assert names - {TOOLS.stem} <= sys.stdlib_module_names
