"""Compile the tests of a fresh checkout once, although every process collects all of them."""

import fcntl
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from tests import settings as suite

TESTS = Path(__file__).parent


def compile_together(config: pytest.Config) -> None:
    """Import this process's share of the tests, and wait until the other processes did so too.

    An import writes the compiled file, with pytest's assertions. Without this, the processes of a
    run would compile the same files at the same time. A run in one process has nothing to share.
    """
    process = getattr(config, "workerinput", None)
    if process is None:
        return
    number, count = int(process["workerid"].removeprefix("gw")), process["workercount"]
    with _lock(number).open("w") as own:
        fcntl.flock(own, fcntl.LOCK_EX)
        for file in sorted(TESTS.rglob("test_*.py"))[number::count]:
            # The collection imports it again, and reports what is wrong or skipped.
            with suppress(Exception, pytest.skip.Exception):
                import_module(".".join(file.relative_to(TESTS.parent).with_suffix("").parts))
    for other in range(count):
        with _lock(other).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)


def _lock(number: int) -> Path:
    return suite.SHARED / f"compiling-{number}.lock"
