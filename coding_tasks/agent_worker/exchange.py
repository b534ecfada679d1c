"""What the workers hand each other in files: texts, patches and credentials.

Temporal's history cannot be erased, so nothing that a person wrote and no credential passes through
it. Both kinds of workers share one volume instead. Each run has a folder in it:

    runs/<run>/job.json        from the worker that prepares the run, removed after the run
    runs/<run>/input/…         files that came with the request, likewise
    runs/<run>/<attempt>/…     from the agent worker, once for each attempt
    homes/<task>.tar.gz        the agent's conversation, from one turn of a task to the next
    workers/<worker>.json      what an agent worker can run, rewritten while it lives
"""

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

from coding_tasks.agent_worker.job import AgentJob, TurnResult

MOST_JOB = 1_000_000
MOST_RESULT = 1_000_000
MOST_PATCH = 20_000_000
MOST_HOME = 50_000_000
MOST_EVENTS = 10_000_000
MOST_OUTPUT = 12_000_000
MOST_INPUT_FILE = 5_000_000
MOST_REPORT = 100_000
MOST_REPORTS = 100
_PRIVATE = 0o600
_INPUT = "input"
_NONE: Mapping[str, bytes] = {}
_RUN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ATTEMPT = re.compile(r"attempt-[0-9a-z-]{1,100}")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NotInExchange(Exception):
    """The file is missing, too large or not a regular file."""


@dataclass(frozen=True)
class Exchange:
    """The shared folder. Whatever an agent worker wrote into it is treated as hostile."""

    root: Path

    def put_job(self, run_id: str, job: AgentJob, files: Mapping[str, bytes] = _NONE) -> None:
        """Write the job of a run and its files, in place of earlier ones."""
        folder = self._run(run_id)
        _remove_folder(folder / _INPUT)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if files:
            (folder / _INPUT).mkdir(mode=0o700)
        for name, content in files.items():
            _replace(folder / _INPUT / name, content)
        _replace(folder / "job.json", json.dumps(asdict(job)).encode())

    def job(self, run_id: str) -> AgentJob:
        """Return the job of a run. Raises `NotInExchange`, also for a malformed job."""
        text = _read(self._run(run_id) / "job.json", MOST_JOB)
        try:
            return AgentJob(**json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise NotInExchange("the job is malformed") from error

    def input_file(self, run_id: str, name: str) -> bytes:
        """Return a file that the job names. Raises `NotInExchange`."""
        return _read(self._run(run_id) / _INPUT / name, MOST_INPUT_FILE)

    def attempt(self, run_id: str, name: str) -> "Attempt":
        """Return the files of one attempt. Raises `NotInExchange` if it cannot be its name."""
        if not _ATTEMPT.fullmatch(name):
            raise NotInExchange("this is no attempt's name")
        return Attempt(self._run(run_id) / name)

    def latest(self, run_id: str) -> "Attempt | None":
        """Return the files of the newest attempt, or None if no attempt has begun."""
        folders = [each for each in _entries(self._run(run_id)) if _ATTEMPT.fullmatch(each.name)]
        newest = max(
            folders, key=lambda each: each.stat(follow_symlinks=False).st_mtime, default=None
        )
        return self.attempt(run_id, newest.name) if newest else None

    def keep_home(self, task_id: str, archive: bytes) -> None:
        """Keep the conversation of a task for its next turn."""
        path = self._home(task_id)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace(path, archive)

    def home(self, task_id: str) -> Path | None:
        """Return where the conversation of a task is kept, or None if it is not."""
        path = self._home(task_id)
        return path if path.is_file() else None

    def remove_home(self, task_id: str) -> None:
        """Forget the conversation of a task."""
        self._home(task_id).unlink(missing_ok=True)

    def keep_unfinished_patch(self, run_id: str, patch: bytes) -> None:
        """Keep what a run did before it had to wait."""
        _replace(self._run(run_id) / "unfinished.patch", patch)

    def unfinished_patch(self, run_id: str) -> Path | None:
        """Return where the work of a run that had to wait is kept, or None."""
        path = self._run(run_id) / "unfinished.patch"
        return path if path.is_file() and path.stat().st_size else None

    def put_report(self, worker: str, report: dict[str, Any]) -> None:
        """Write what an agent worker can run, in place of its earlier report."""
        path = self._report(worker)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace(path, json.dumps(report).encode())

    def withdraw_report(self, worker: str) -> None:
        """Remove the report of an agent worker that stops."""
        with suppress(OSError):
            self._report(worker).unlink(missing_ok=True)

    def reports(self, younger_than: float) -> list[tuple[str, Any]]:
        """Return the names and reports of agent workers, if younger than this many seconds."""
        since = time.time() - younger_than
        recent = [each for each in _entries(self.root / "workers") if _written_at(each) >= since]
        found = []
        for path in sorted(Path(each.path) for each in recent)[:MOST_REPORTS]:
            with suppress(NotInExchange, ValueError, RecursionError):
                found.append((path.stem, json.loads(_read(path, MOST_REPORT))))
        return found

    def remove(self, run_id: str) -> None:
        """Remove everything about a run, beginning with its credential."""
        folder = self._run(run_id)
        with suppress(OSError):
            (folder / "job.json").unlink()
        _remove_folder(folder)

    def run_ids(self) -> list[str]:
        """Return the ids of the runs that have something here."""
        return [each.name for each in _entries(self.root / "runs") if _RUN.fullmatch(each.name)]

    def remove_leftovers(self, older_than: timedelta) -> None:
        """Remove what belongs to runs that nobody collected, and to tasks that ended long ago."""
        before = time.time() - older_than.total_seconds()
        folders = ("runs", "homes", "workers")
        for left in (each for name in folders for each in _entries(self.root / name)):
            if _written_at(left) >= before:
                continue
            if left.is_dir(follow_symlinks=False):
                _remove_folder(Path(left.path))
            else:
                Path(left.path).unlink(missing_ok=True)

    def _run(self, run_id: str) -> Path:
        return self.root / "runs" / str(UUID(run_id))

    def _report(self, worker: str) -> Path:
        return self.root / "workers" / f"{worker}.json"

    def _home(self, task_id: str) -> Path:
        return self.root / "homes" / f"{UUID(task_id)}.tar.gz"


@dataclass(frozen=True)
class Attempt:
    """The files of one attempt at a run."""

    folder: Path

    def begin(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, mode=0o700)

    def write_events(self) -> BinaryIO:
        """Open the file of events, one JSON object in each line. Lines are written at once."""
        return open(self._events, "wb", buffering=0)

    @property
    def _events(self) -> Path:
        return self.folder / "events.jsonl"

    def put(self, result: TurnResult, patch: bytes, home: bytes, output: bytes = b"") -> None:
        """Write what the attempt made. The result comes last, so it stands for all of it."""
        _replace(self.folder / "patch", patch)
        _replace(self.folder / "output.jsonl", output)
        _replace(self.folder / "home.tar.gz", home)
        _replace(self.folder / "result.json", json.dumps(asdict(result)).encode())

    def result(self) -> TurnResult:
        """Return how the attempt ended. Raises `NotInExchange`, also for a malformed result."""
        text = _read(self.folder / "result.json", MOST_RESULT)
        try:
            return TurnResult.from_json(json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise NotInExchange("the result is malformed") from error

    def patch(self) -> bytes:
        """Return the change. Raises `NotInExchange`."""
        return _read(self.folder / "patch", MOST_PATCH)

    def home(self) -> bytes:
        """Return the saved home, which only a sandbox may unpack. Raises `NotInExchange`."""
        return _read(self.folder / "home.tar.gz", MOST_HOME)

    def output(self) -> bytes:
        """Return the files that the agent left for people, one a line. Raises `NotInExchange`."""
        return _read(self.folder / "output.jsonl", MOST_OUTPUT)

    def event_lines(self) -> list[bytes]:
        """Return the complete lines of events so far."""
        try:
            lines = _read(self._events, MOST_EVENTS + 1).split(b"\n")
        except NotInExchange:
            return []
        return lines[:-1]


def _read(path: Path, most: int) -> bytes:
    try:
        handle = os.open(path, _READ)
    except OSError as error:
        raise NotInExchange(f"{path.name} cannot be opened: {error.strerror}") from error
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise NotInExchange(f"{path.name} is not a file")
        content = file.read(most + 1)
    if len(content) > most:
        raise NotInExchange(f"{path.name} has more than {most} bytes")
    return content


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with open(os.open(new, _WRITE, _PRIVATE), "wb") as file:
        file.write(content)
    new.replace(path)


def _written_at(entry: os.DirEntry[str]) -> float:
    """Return when the entry was written, in seconds since 1970, or 0 if it is gone."""
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return 0


def _remove_folder(folder: Path) -> None:
    # Agents can nest folders so deeply that `rmtree` fails with this error.
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
