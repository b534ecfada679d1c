"""Compile the tests of a fresh checkout once, although every process collects all of them."""

import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from tests import settings as suite

TESTS = Path(__file__).parent
LONGEST_WAIT = 60
"""Seconds. A process that waited in vain compiles the remaining files itself."""


def compile_together(config: pytest.Config) -> None:
    """Import this process's share of the tests, and wait until the other processes did so too.

    An import writes the compiled file, with pytest's assertions. Without this, the processes of a
    run would compile the same files at the same time. A run in one process has nothing to share.
    """
    process = getattr(config, "workerinput", None)
    if process is None:
        return
    number, count = int(process["workerid"].removeprefix("gw")), process["workercount"]
    for file in sorted(TESTS.rglob("test_*.py"))[number::count]:
        # The collection imports it again, and reports what is wrong or skipped.
        with suppress(Exception, pytest.skip.Exception):
            import_module(".".join(file.relative_to(TESTS.parent).with_suffix("").parts))
    (suite.SHARED / f"compiled-{number}").touch()
    began = time.monotonic()
    while len(list(suite.SHARED.glob("compiled-*"))) < count:
        if time.monotonic() - began > LONGEST_WAIT:
            return
        time.sleep(0.01)
