"""Test many mutations in forks of one prepared process.

    python -m tests.mutations.worker JOB

The job's directory holds `job.pickle` and gets a line in `results.jsonl` for each verdict. The
process imports everything, starts the servers and runs every test once. This shows which tests run
which lines, and how long they take. Then each mutation gets a fork that runs the tests of its
lines, and those that were not traced to their end. It stops at the first failure. Tests that
noticed another mutation of the same function come first, then the fastest.
"""

import gc
import json
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.mutations.job import Job
from tests.mutations.mutation import Mutation
from tests.mutations.python_source import statement_lines

KILLED, SURVIVED, NO_VERDICT, TIMEOUT = 1, 0, 3, 4
TIMES_LONGER, SECONDS_MORE = 8, 5.0
"""How long a test may take with a mutation: this many times its usual time, plus these seconds."""

SCRIPT_RUNS_ON = ("redis.exceptions.TimeoutError", "BUSY ", "RedisUnavailable")
"""How a test fails if its server still runs a script. Every further test would fail so, too."""

TRACED_SECONDS = 1.5
"""How much processor time of a test is traced. A longer one repeats itself with more examples."""
FEWER_EXAMPLES = 4
"""A mutation is seen by one of the first examples, or by a test of its own."""


class Lines:
    """The lines of the mutated files that each test runs, and the scripts that it calls."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = dict(files)
        self.tests: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.cut: set[str] = set()  # tests that were not traced to their end
        self._seen: set[tuple[str, int]] = set()
        self._is_cut = False

    def begin(self) -> None:
        self._seen = set()
        self._is_cut = False
        signal.signal(signal.SIGVTALRM, self._cut)
        signal.setitimer(signal.ITIMER_VIRTUAL, TRACED_SECONDS)
        threading.settrace(self._call)
        sys.settrace(self._call)

    def end(self, test: str) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        for place in self._seen:
            self.tests[place].add(test)
        if self._is_cut:
            self.cut.add(test)

    def _cut(self, *_: object) -> None:
        sys.settrace(None)
        self._is_cut = True

    def script(self, path: str) -> None:
        self._seen.add((path, 0))

    def _call(self, frame, event, arg):
        del event, arg
        file = self._files.get(frame.f_code.co_filename)
        if file is None:
            return None
        self._seen.add((file, frame.f_lineno))
        return self._line

    def _line(self, frame, event, arg):
        del event, arg
        self._seen.add((self._files[frame.f_code.co_filename], frame.f_lineno))
        return self._line


class Forks:
    """A plugin of pytest that runs the tests once, and then again for each mutation."""

    def __init__(self, job: Job, root: Path, results: Path) -> None:
        self._job = job
        self._root = root
        self._results = results
        self._lines = Lines({str(root / file): file for file in job.files})
        self._took: dict[str, float] = {}
        self._failed = ""
        self._saved = int(time.time())
        self._noticed: dict[tuple[str, str], set[str]] = defaultdict(set)

    def pytest_collection(self) -> None:
        """Draw the same examples each time, and don't spend time on making them small."""
        import hypothesis

        from tests import examples

        hypothesis.settings.register_profile(
            "mutations",
            hypothesis.settings.get_profile("patient"),
            phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
            derandomize=True,
        )
        hypothesis.settings.load_profile("mutations")
        examples.examples = lambda usual: max(1, usual // FEWER_EXAMPLES)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self._failed:
            self._failed = f"{report.nodeid} ({report.when})\n{report.longreprtext[-2000:]}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        from tests.mutations.applied import Objects

        began = time.monotonic()
        objects = Objects()
        self._record_scripts()
        known = self._job.known and Path(self._job.known)
        if known and known.exists():
            self._lines.tests, self._lines.cut, self._took = pickle.loads(known.read_bytes())
        # Nobody sees which lines a gateway process runs.
        session.items = [item for item in session.items if not _has_gateway(item)]
        self._next = _any_of(session.items)
        for item in self._one_for_each_fixture(session) if self._took else session.items:
            objects.forget_caches()
            start = time.monotonic()
            self._lines.begin()
            try:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=self._next)
            finally:
                self._lines.end(item.nodeid)
            self._took.setdefault(item.nodeid, time.monotonic() - start)
            if self._failed:  # such as on a busy machine: this test can notice nothing
                sys.stdout.write(f"left out, as it fails without any mutation: {self._failed}\n")
                del self._took[item.nodeid]
                self._failed = ""
        if known:
            known.write_bytes(pickle.dumps((self._lines.tests, self._lines.cut, self._took)))
        items = {item.nodeid: item for item in session.items}
        database = _Database()
        self._objects = Objects()
        gc.freeze()  # so that a fork doesn't copy the memory of every object that it collects
        for mutation in self._job.mutations:
            if time.monotonic() - began > self._job.seconds:
                break
            database.restore()
            original = (self._root / mutation.file).read_text()
            try:
                self._judge(mutation, items)
            finally:
                self._save(mutation.file, original)
        return True

    def _one_for_each_fixture(self, session: pytest.Session) -> list[pytest.Item]:
        """Return the fastest tests that together set up every fixture of the session."""
        chosen, prepared = [], set()
        for item in sorted(session.items, key=lambda item: self._took.get(item.nodeid, 0)):
            defined = item._fixtureinfo.name2fixturedefs
            shared = {name for name in defined if defined[name][-1].scope in ("session", "package")}
            if not shared <= prepared:
                chosen.append(item)
                prepared |= shared
        return chosen

    def _record_scripts(self) -> None:
        from gateway.network.redis_connection import Redis, Script
        from quota.published import redis_client

        lines = self._lines
        run, script, begin = Redis.run, redis_client.script, Script.__init__

        def recorded_begin(script, name):
            lines.script(f"gateway/lua/{name}.lua")
            lines.script("gateway/lua/_prelude.lua")
            begin(script, name)

        def recorded_run(redis, script, keys, *arguments):
            lines.script(f"gateway/lua/{script.name}.lua")
            lines.script("gateway/lua/_prelude.lua")
            return run(redis, script, keys, *arguments)

        def recorded_script(name):
            lines.script(f"quota/published/lua/{name}.lua")
            return script(name)

        recorded_script.cache_clear = script.cache_clear
        Redis.run = recorded_run
        Script.__init__ = recorded_begin
        redis_client.script = recorded_script

    def _judge(self, mutation: Mutation, items: dict) -> None:
        noticed = self._noticed[mutation.file, mutation.function]
        tests = sorted(
            self._tests_of(mutation) & self._took.keys(),
            key=lambda test: (test not in noticed, self._took[test]),
        )
        if not tests:
            self._write(mutation, "untested", "", 0.0)
            return
        limit = sum(map(self._limit, tests)) + SECONDS_MORE
        began = time.monotonic()
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about forks of processes with threads
            child = os.fork()
        if child == 0:
            os.close(reading)
            self._run(mutation, [items[name] for name in tests], writing)
        os.close(writing)
        status = _wait(child, began + limit)
        with open(reading, errors="replace") as told:
            detail = told.read()
        outcome = {
            None: "timeout",
            TIMEOUT: "timeout",
            SURVIVED: "survived",
            NO_VERDICT: "no verdict",
        }.get(status, "killed")
        is_script = mutation.file.endswith(".lua")
        if is_script and any(sign in detail for sign in SCRIPT_RUNS_ON):
            outcome = "timeout"
        self._write(mutation, outcome, detail, time.monotonic() - began)
        noticed.update(test for test in tests if detail.startswith(f"{test} ("))
        if outcome == "timeout" and is_script:
            raise SystemExit("the server may still run the script")

    def _limit(self, test: str) -> float:
        return TIMES_LONGER * self._took[test] + SECONDS_MORE

    def _save(self, file: str, text: str) -> None:
        """Write a file for processes that tests start. Its new time makes old bytecode invalid."""
        path = self._root / file
        path.write_text(text)
        self._saved += 2  # a fork's number lies between two of its parent's
        os.utime(path, (self._saved, self._saved))

    def _tests_of(self, mutation: Mutation) -> set[str]:
        """Return the tests that run its lines, and those that were traced only in part."""
        return self._seen_in(mutation) | self._lines.cut

    def _seen_in(self, mutation: Mutation) -> set[str]:
        path = mutation.file
        if mutation.file.endswith(".lua"):
            return self._lines.tests.get((path, 0), set())
        exact = {
            test
            for line in range(mutation.first, mutation.last + 1)
            for test in self._lines.tests.get((path, line), ())
        }
        if exact:
            return exact
        lines = statement_lines((self._root / path).read_text(), mutation.first)
        return {test for line in lines for test in self._lines.tests.get((path, line), ())}

    def _run(self, mutation: Mutation, items: list, told: int) -> None:
        """Run the tests in a fork with the mutation; never return."""
        status = KILLED
        try:
            os.setsid()  # so that the servers that it starts end with it
            from tests.mutations.applied import NotApplied, apply

            sys.settrace(None)
            self._failed = ""
            try:
                apply(mutation, self._root, self._objects)
            except (NotApplied, SyntaxError, ValueError) as error:
                os.write(told, str(error).encode())
                status = NO_VERDICT
                os._exit(status)
            self._objects.forget_caches()
            self._saved -= 1
            self._save(mutation.file, mutation.mutated)
            signal.signal(signal.SIGALRM, lambda *_: os._exit(TIMEOUT))
            for item in items:
                signal.setitimer(signal.ITIMER_REAL, self._limit(item.nodeid))
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=self._next)
                if self._failed:
                    break
            else:
                status = SURVIVED
            os.write(told, self._failed.encode()[:4000])
        except BaseException:
            os.write(told, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(status)

    def _write(self, mutation: Mutation, outcome: str, detail: str, took: float) -> None:
        line = {
            "digest": mutation.digest,
            "key": mutation.key,
            "line": mutation.first,
            "outcome": outcome,
            "detail": detail,
            "seconds": round(took, 2),
        }
        with self._results.open("a") as results:
            results.write(json.dumps(line) + "\n")


def _has_gateway(item: pytest.Item) -> bool:
    """Return whether a test calls a gateway process."""
    return not {"_world", "_fragile_world", "_watched"}.isdisjoint(
        item._fixtureinfo.name2fixturedefs
    )


def _any_of(items: list[pytest.Item]) -> SimpleNamespace:
    """Return a next test with which pytest keeps fixtures of the session and common packages."""
    packages = [node for node in items[0].listchain() if not isinstance(node, pytest.Module)]
    common = [node for node in packages if all(node in item.listchain() for item in items)]
    return SimpleNamespace(listchain=lambda: common)


class _Database:
    """The test database as it was before any mutation."""

    def __init__(self) -> None:
        from django.db import connections

        self._path = Path(connections["default"].settings_dict["NAME"])
        self._close()
        if self._path.exists():
            shutil.copy(self._path, f"{self._path}.pristine")

    def restore(self) -> None:
        """Forget what a killed test left behind."""
        self._close()
        pristine = Path(f"{self._path}.pristine")
        if pristine.exists():
            for suffix in ("-wal", "-shm", "-journal"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            shutil.copy(pristine, self._path)

    @staticmethod
    def _close() -> None:
        from django.db import connections

        connections.close_all()


def _wait(child: int, deadline: float) -> int | None:
    """Wait for a process; return its status, or None if it had to be killed."""
    status: int | None = None
    while time.monotonic() < deadline:
        done, raw = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(raw)
            break
        time.sleep(0.005)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
    return status


def main(directory: str) -> int:
    """Run one job in the copy of the project that is the current directory."""
    job: Job = pickle.loads((Path(directory) / "job.pickle").read_bytes())
    root = Path.cwd()
    arguments = [
        "-p", "no:randomly", "-p", "no:cacheprovider", "-o", "timeout=0", "--numprocesses", "0",
        "--quiet", "--tb=native", *job.tests,
    ]  # fmt: skip
    plugin = Forks(job, root, Path(directory) / "results.jsonl")
    return pytest.main(arguments, plugins=[plugin])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
