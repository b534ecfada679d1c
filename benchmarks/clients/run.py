"""One run: a client is refused in one way until it shows the text, ends or is ended."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.clients.clients import Client
from benchmarks.clients.refusals import SENTENCE, Variant
from benchmarks.clients.server import RefusingServer

MOST_SECONDS_TO_BEGIN = 120.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NO_LETTERS = re.compile(r"[^a-z]")


@dataclass(frozen=True)
class Outcome:
    """The result of a run. `shown` and `ended` are seconds from the first call, or None for never.

    `goes_on` says whether it called again after the text was shown.
    """

    attempts: int
    shown: float | None
    ended: float | None
    goes_on: bool
    said: str

    def cell(self, cap: float) -> str:
        """Return the table's cell: attempts, seconds, and whether the text was lost."""
        if not self.attempts:
            return "did not call"
        if self.shown is not None:
            cell = f"{self.attempts} · {self.shown:.0f} s"
            if self.ended is None:
                return f"{cell}, goes on for >{cap:.0f} s"
            return f"{cell}, goes on for {self.ended:.0f} s" if self.goes_on else cell
        if self.ended is None:
            return f"{self.attempts} · >{cap:.0f} s"
        return f"{self.attempts} · {self.ended:.0f} s, text lost"


def run(
    server: RefusingServer,
    tools: Path,
    client: Client,
    variant: Variant,
    name: str,
    cap: float,
    stop: threading.Event,
) -> Outcome:
    """Run a client once. End it `cap` seconds after its first call, or at `stop`."""
    url, attempts = server.expect(name, variant)
    with tempfile.TemporaryDirectory(prefix="tollgate-client-") as scratch:
        home = Path(scratch)
        start = client.start(tools, home, url)
        environment = {"PATH": os.environ["PATH"], "HOME": scratch, "TERM": "dumb"}
        began = time.monotonic()
        process = subprocess.Popen(
            start.argv,
            cwd=start.folder,
            env=environment | start.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it starts can be ended with it
        )
        assert process.stdout is not None, "it is piped"
        listener = _Listener(process.stdout)
        try:
            while process.poll() is None and not stop.is_set():
                first = attempts.times[0] if attempts.times else None
                limit = began + MOST_SECONDS_TO_BEGIN if first is None else first + cap
                if time.monotonic() > limit:
                    break
                time.sleep(0.05)
            ended = time.monotonic() if process.poll() is not None else None
        finally:
            _end(process)
            listener.join()
    first = attempts.times[0] if attempts.times else began
    shown = listener.seen_at
    return Outcome(
        len(attempts.times),
        None if shown is None else shown - first,
        None if ended is None else ended - first,
        shown is not None and bool(attempts.times) and attempts.times[-1] > shown,
        listener.text(),
    )


class _Listener(threading.Thread):
    """Reads what a client prints, and records when the sentence appears.

    Only letters are compared, because clients break lines, draw boxes and escape quotes.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._said = b""
        self.seen_at: float | None = None
        self.start()

    def run(self) -> None:
        wanted = _letters(SENTENCE)
        while chunk := os.read(self._stream.fileno(), 65536):
            self._said += chunk
            if self.seen_at is None and wanted in _letters(self.text()):
                self.seen_at = time.monotonic()
        self._stream.close()

    def text(self) -> str:
        return _ESCAPES.sub("", self._said.decode(errors="replace"))


def _letters(text: str) -> str:
    return _NO_LETTERS.sub("", text.lower())


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the client and everything that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
