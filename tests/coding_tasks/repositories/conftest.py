"""Mirrors and checkouts in a folder of the test, and an upstream repository."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from coding_tasks.repositories.changes import ChangeRequest, Requester
from coding_tasks.repositories.mirrors import Base, Mirrors
from coding_tasks.repositories.remotes import Remote
from coding_tasks.repositories.shared_checkouts import SharedCheckouts
from tests.git_repositories import make_repository

BRANCH = "tollgate/add-a-flag-0123456789ab"


@pytest.fixture
def mirrors(tmp_path: Path) -> Mirrors:
    return Mirrors(tmp_path / "data")


@pytest.fixture
def checkouts(tmp_path: Path) -> SharedCheckouts:
    return SharedCheckouts(tmp_path / "data")


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    make_repository(tmp_path / "upstream", {"README.md": "# Shop\n", "src/shop.py": "sell()\n"})
    return tmp_path / "upstream"


@pytest.fixture
def remote(upstream: Path) -> Remote:
    return Remote("1", f"file://{upstream}")


def request_of(base: Base, patch: bytes, branch: str = BRANCH, **fields) -> ChangeRequest:
    """Return a request to commit the patch."""
    return ChangeRequest(
        **{
            "base": base,
            "branch": branch,
            "patch": patch,
            "subject": "Add a flag",
            "requester": Requester("Ada", "ada@example.com"),
            "committed_at": datetime(2026, 11, 30, 12, tzinfo=UTC),
        }
        | fields
    )


def new_file(path: str, text: str = "hi", mode: str = "100644") -> bytes:
    """Return a patch that adds a file of one line. The path is quoted as git does if needed."""
    return (
        f"diff --git {_quoted('a/', path)} {_quoted('b/', path)}\nnew file mode {mode}\n"
        f"--- /dev/null\n+++ {_quoted('b/', path)}\n@@ -0,0 +1 @@\n+{text}\n"
    ).encode()


def _quoted(side: str, path: str) -> str:
    return f'"{side}{path}"' if "\\" in path else side + path
