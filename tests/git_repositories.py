"""Small git repositories on the local disk, for tests that clone."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

EMPTY_FILE = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
"""git's object id of an empty file."""


def make_repository(directory: Path, files: Mapping[str, str]) -> str:
    """Commit the files to a new repository; return its clone address."""
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    run_git(directory, "init", "--quiet", "--initial-branch=main")
    commit(directory)
    return f"file://{directory}"


def import_files(directory: Path, *paths: str) -> str:
    """Commit empty files at any paths that git accepts; return the clone address."""
    make_repository(directory, {"README.md": "# Imported\n"})
    files = "".join(f"M 100644 {EMPTY_FILE} {path}\n" for path in paths)
    blob = "blob\ndata 0\n\n"
    head = "commit refs/heads/main\ncommitter Test <test@example.com> 0 +0000\ndata 0\n\n"
    run_git(directory, "fast-import", "--quiet", "--force", given=f"{blob}{head}{files}")
    return f"file://{directory}"


def commit(directory: Path) -> None:
    """Commit everything in the working tree."""
    run_git(directory, "add", "--all")
    run_git(directory, "commit", "--quiet", "--message=change")


def run_git(directory: Path, *arguments: str, given: str | None = None) -> str:
    """Run git in the directory as a test user; return its output. It adds no sample hooks."""
    person = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    ran = subprocess.run(
        ["git", *person, *arguments],
        cwd=directory,
        env=os.environ | {"GIT_TEMPLATE_DIR": ""},
        check=True,
        capture_output=True,
        input=given,
        text=True,
    )
    return ran.stdout.strip()
