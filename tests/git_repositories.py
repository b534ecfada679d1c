"""Small git repositories on the local disk, for tests that clone."""

import subprocess
from collections.abc import Mapping
from pathlib import Path


def make_repository(directory: Path, files: Mapping[str, str]) -> str:
    """Commit the files to a new repository; return the address to clone it from."""
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    run_git(directory, "init", "--quiet", "--initial-branch=main")
    commit(directory)
    return f"file://{directory}"


def commit(directory: Path) -> None:
    """Commit whatever is in the working tree."""
    run_git(directory, "add", "--all")
    run_git(directory, "commit", "--quiet", "--message=change")


def run_git(directory: Path, *arguments: str, given: str | None = None) -> str:
    """Run git in the directory as a person of the tests; return what it printed."""
    person = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    ran = subprocess.run(
        ["git", *person, *arguments],
        cwd=directory,
        check=True,
        capture_output=True,
        input=given,
        text=True,
    )
    return ran.stdout.strip()
