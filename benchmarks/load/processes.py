"""Run processes on chosen cores, and measure their CPU time, their memory, and the noise."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

QUIET = 0.1  # share of the gateway's core that others may have
_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1

_cores = sorted(os.sched_getaffinity(0))
GATEWAY_CORE = _cores[0]
# The core of the harness, the stores and the fakes. With one core, everything shares it.
OTHER_CORE = _cores[-1]


def manage(environment: dict[str, str], *arguments: str) -> str:
    """Run a command of Tollgate in an environment and return its output."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def start(
    argv: list[str],
    log: Path,
    *,
    cores: AbstractSet[int],
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program on the given cores with only the given environment.

    It dies with this process.
    """

    def prepare() -> None:
        os.sched_setaffinity(0, cores)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"PATH": os.environ["PATH"], **(environment or {})},
            preexec_fn=prepare,  # noqa: PLW1509 - this process has one thread
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end; kill it if it does not."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    """Wait until a process serves. If it ends, raise `RuntimeError` with the end of its log."""
    deadline = time.monotonic() + 90
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{log.name}: {log.read_text(errors='replace')[-600:]}")
        time.sleep(0.05)


@contextmanager
def running(
    argv: list[str],
    log: Path,
    ready: Callable[[], bool],
    *,
    cores: AbstractSet[int],
    environment: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends."""
    process = start(argv, log, cores=cores, environment=environment)
    try:
        wait_ready(process, ready, log)
        yield process
    finally:
        stop(process)


def family(pid: int) -> list[int]:
    """Return a process and all its descendants. Some may have ended meanwhile."""
    found = [pid]
    with suppress(ProcessLookupError, FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process and its descendants have used."""
    total = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def exact_cpu_seconds(pid: int) -> float:
    """Return the CPU seconds to the nanosecond, from each process's CPU clock (Linux)."""
    return sum(time.clock_gettime((~each << 3) | 2) for each in family(pid))


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process and its descendants."""
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _busy_seconds(core: int) -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[:8])
            return (user + nice + system + irq + softirq + steal) / _TICKS
    return 0.0


@contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """Keep processes and their descendants from using the core in this block."""
    found = [each for pid in pids for each in family(pid)]
    for each in found:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in found:
            os.kill(each, signal.SIGCONT)


@dataclass
class Cost:
    """What was used while something was measured.

    `others` is the share of the gateway's core that other programs had. It makes a throughput too
    low.
    """

    cpu: float = 0.0
    others: float = 0.0
    load: float = 0.0

    @property
    def noisy(self) -> bool:
        """Whether others had so much of the core that times mean little."""
        return self.others > QUIET

    def note(self) -> str:
        """Return the noise as a text."""
        return f"load {self.load:.1f}, others {self.others:.0%}"


@contextmanager
def costing(pid: int) -> Iterator[Cost]:
    """Measure what a process uses in this block, and who else was on its core."""
    cost = Cost()
    began, cpu, busy = time.monotonic(), cpu_seconds(pid), _busy_seconds(GATEWAY_CORE)
    yield cost
    elapsed = time.monotonic() - began
    cost.cpu = cpu_seconds(pid) - cpu
    cost.others = max(0.0, (_busy_seconds(GATEWAY_CORE) - busy - cost.cpu) / elapsed)
    cost.load = os.getloadavg()[0]
