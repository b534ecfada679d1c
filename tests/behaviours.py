"""The cases of docs/behaviours.md, and the tests that are marked with them.

`python -m tests.behaviours` writes each case's tests into the document.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "behaviours.md"
_ROW = re.compile(r"^\| (?P<case>[A-Z]\d+) \| (?P<behaviour>.*?) \| (?P<tests>.*)\|$", re.MULTILINE)
_MARK = "pytest.mark.case"


def cases() -> dict[str, str]:
    """Return what the document says about each case."""
    return {row["case"]: row["behaviour"] for row in _ROW.finditer(DOCUMENT.read_text())}


def listed() -> dict[str, list[str]]:
    """Return the tests that the document lists for each case, as `file::test`."""
    rows = _ROW.finditer(DOCUMENT.read_text())
    return {row["case"]: re.findall(r"`([^`]+)`", row["tests"]) for row in rows}


def marked() -> dict[str, list[str]]:
    """Return the tests that are marked with each case, as `file::test`."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text()
        if _MARK in text:
            for case, test in _marks(ast.parse(text)):
                found.setdefault(case, []).append(f"{path.relative_to(TESTS.parent)}::{test}")
    return found


def _marks(tree: ast.AST, within: str = "") -> Iterator[tuple[str, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _marks(node, f"{within}{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == _MARK:
                    for case in mark.args:
                        yield ast.literal_eval(case), f"{within}{node.name}"


def main() -> None:
    """Write the tests of each case into the document."""
    tests = marked()

    def with_tests(row: re.Match[str]) -> str:
        names = " ".join(f"`{test}`" for test in tests.get(row["case"], []))
        return f"| {row['case']} | {row['behaviour']} | {names} |"

    DOCUMENT.write_text(_ROW.sub(with_tests, DOCUMENT.read_text()))


if __name__ == "__main__":
    main()
