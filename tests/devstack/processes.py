"""Run a process whose output a test reads, and find out whether processes are gone."""

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import wait_until

ROOT = Path(__file__).resolve().parents[2]


class Lines:
    """The output of a process so far."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self._text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self.process.stdout as output:
            for line in output:
                self._text += line

    def end(self) -> int:
        """Wait until the process and its output have ended; return the exit status."""
        status = self.process.wait(60)
        self._reader.join(60)
        return status

    @property
    def text(self) -> str:
        return self._text

    def find(self, pattern: str) -> list[str]:
        return re.findall(pattern, self._text)

    def wait_for(self, pattern: str, count: int = 1, timeout: float = 60) -> list[str]:
        """Wait until the pattern was printed `count` times; return the matches."""
        wait_until(
            lambda: len(self.find(pattern)) >= count or self.process.poll() is not None,
            timeout,
            f"{pattern!r} {count} times in {self._text!r}",
        )
        wait_until(lambda: len(self.find(pattern)) >= count, 10, f"{pattern!r} in {self._text!r}")
        return self.find(pattern)


@contextmanager
def started(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[Lines]:
    """Run a Python module of this checkout until the block ends, by default in our environment."""
    process = subprocess.Popen(
        [sys.executable, "-um", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines = Lines(process)
    try:
        yield lines
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        lines.end()


def lives(pid: int) -> bool:
    """Return whether a process runs. A zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until_gone(pids: Sequence[int], timeout: float = 60) -> None:
    wait_until(
        lambda: not any(lives(pid) for pid in pids), timeout, f"the end of the processes {pids}"
    )


@contextmanager
def listening() -> Iterator[int]:
    """Listen on a free port until the block ends; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
