"""What preparing a run and committing its change cost: `python -m benchmarks.repositories [FILES]`.

A repository of 50,000 files on this machine's disk. The first run of a commit fetches and writes
everything; later ones find both there. The remote is on the same disk: a network comes on top.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
django.setup()

from benchmarks.load.table import Table  # noqa: E402
from coding_tasks.repositories.changes import (  # noqa: E402
    ChangeRequest,
    Requester,
    commit_change,
)
from coding_tasks.repositories.mirrors import Base, Mirrors  # noqa: E402
from coding_tasks.repositories.remotes import Remote  # noqa: E402
from coding_tasks.repositories.shared_checkouts import SharedCheckouts  # noqa: E402
from tests.git_repositories import run_git  # noqa: E402

ROUNDS = 20
MOST_SECONDS = 0.3
"""What the second prepare may take."""


def main(files: int = 50_000) -> int:
    """Measure, print the table, and return 1 if the target was missed."""
    table = Table()
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as scratch:
        origin = _repository(Path(scratch) / "origin", files)
        remote = Remote("bench", f"file://{origin}")
        mirrors = Mirrors(Path(scratch) / "data")
        checkouts = SharedCheckouts(Path(scratch) / "data")

        def prepare(holder: str) -> Base:
            base = mirrors.update(remote)
            checkouts.provide(mirrors, remote, base, holder=holder)
            return base

        first = _seconds(lambda: prepare("first"))
        table.add(f"first prepare, {files} files", f"{first:.2f} s")
        again = [_seconds(lambda: prepare("again")) for _ in range(ROUNDS)]
        slowest = max(again)
        table.add(
            "second prepare: p50, slowest",
            f"{statistics.median(again) * 1000:.0f}, {slowest * 1000:.0f} ms",
            f"≤ {MOST_SECONDS * 1000:.0f} ms",
            slowest <= MOST_SECONDS,
        )
        base = prepare("again")
        commits = [
            _seconds(lambda number=number: _commit(mirrors, remote, base, number))
            for number in range(5)
        ]
        table.add("commit a change: p50", f"{statistics.median(commits) * 1000:.0f} ms")
    table.show()
    return 1 if table.missed else 0


def _repository(path: Path, files: int) -> Path:
    """Commit files of 1 kB in folders of a hundred, each with another text."""
    path.mkdir()
    run_git(path, "init", "--quiet", "--bare", "--initial-branch=main")
    lines = ["commit refs/heads/main\ncommitter Bench <bench@example.com> 0 +0000\ndata 0\n"]
    for number in range(files):
        text = f"{number}\n" * (1000 // len(f"{number}\n"))
        lines.append(f"M 100644 inline d{number // 100}/f{number}\ndata {len(text)}\n{text}\n")
    run_git(path, "fast-import", "--quiet", given="".join(lines))
    return path


def _commit(mirrors: Mirrors, remote: Remote, base: Base, number: int) -> None:
    patch = (
        f"diff --git a/new{number} b/new{number}\nnew file mode 100644\n--- /dev/null\n"
        f"+++ b/new{number}\n@@ -0,0 +1 @@\n+new\n"
    )
    request = ChangeRequest(
        base=base,
        branch=f"tollgate/{number}",
        patch=patch.encode(),
        subject="Bench",
        requester=Requester("Bench"),
        committed_at=datetime.now(UTC),
    )
    commit_change(mirrors, remote, request)


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
