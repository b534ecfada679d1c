"""What the coding sandbox costs: starting, preparing a tree, stopping, memory, and leftovers.

`SANDBOX` chooses the sandbox. The targets are for bubblewrap.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from benchmarks.load.table import Table
from coding_tasks.sandbox import choice
from coding_tasks.sandbox.command import HOME_INSIDE, Command
from coding_tasks.sandbox.interface import Door, Limits, Sandbox, Workspace

STARTS = 200
PREPARES = 20
FILES = 50_000
RUNS = 1_000
AT_ONCE = 20
DOOR = Door("http://127.0.0.1:9", "slack_app")
"""Nobody calls through it."""
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": HOME_INSIDE}
ECHO = ("/bin/echo", "first instruction")
HELPERS = (b"keeper.fork_server", b"bwrap", b"runsc", b"docker")
"""Parts of the command lines of processes that serve the sandbox."""
MEGABYTE = 1_000_000
_WHO = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.com")


def main(runs: int) -> int:
    """Measure everything; return 1 if a target was missed."""
    sandbox = choice.from_environment().sandbox()
    if reason := sandbox.why_missing():
        print(f"no sandbox on this machine: {reason}")
        return 1
    table = Table()
    asyncio.run(measure(sandbox, table, runs))
    table.show()
    return 1 if table.missed else 0


async def measure(sandbox: Sandbox, table: Table, runs: int) -> None:
    """Add all rows to the table."""
    await starts(sandbox, table)
    await stops(sandbox, table)
    await memory(sandbox, table)
    with many_files(sandbox) as tree:
        await prepares(sandbox, table, tree)
        await exports(sandbox, table, tree)
    await leftovers(sandbox, table, runs)


async def starts(sandbox: Sandbox, table: Table) -> None:
    """Compare a command in the sandbox with the same program alone, in turns."""
    added, bare = [], []
    async with sandbox.open(None) as workspace:
        for _ in range(STARTS):
            alone = await until_first_output_alone()
            inside = await until_first_output(workspace)
            bare.append(alone)
            added.append(inside - alone)
    p50, p95 = percentile(added, 50), percentile(added, 95)
    seen = f"p50 {p50 * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms"
    table.add(
        "sandbox with a way to the gateway: first output, beyond that of a bare process",
        seen,
        "p50 ≤ 30 ms, p95 ≤ 80 ms",
        p50 <= 0.030 and p95 <= 0.080,
        f"{STARTS} starts; bare: p50 {percentile(bare, 50) * 1e3:.1f} ms",
    )


async def stops(sandbox: Sandbox, table: Table) -> None:
    """Measure from `kill` until no process of the command is left."""
    took = []
    script = "for n in 1 2 3 4; do setsid sleep 1000 & done; echo up; wait"
    async with sandbox.open(None) as workspace:
        for _ in range(STARTS):
            command = Command(("/bin/sh", "-c", script), ENVIRONMENT)
            async with workspace.start(command, Limits(), DOOR) as process:
                await anext(process.lines())
                began = time.perf_counter()
                process.kill()
                await process.wait()
                took.append(time.perf_counter() - began)
    p50, p99 = percentile(took, 50), percentile(took, 99)
    seen = f"p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
    table.add("stop until the last of five processes is gone", seen, "", None, f"{STARTS} stops")


async def memory(sandbox: Sandbox, table: Table) -> None:
    """Measure this process and the keepers while many commands run."""
    command = Command(("/bin/sleep", "1000"), ENVIRONMENT)
    async with AsyncExitStack() as stack:
        for _ in range(AT_ONCE):
            workspace = await stack.enter_async_context(sandbox.open(None))
            await stack.enter_async_context(workspace.start(command, Limits(), DOOR))
        await asyncio.sleep(1)
        ours = proportional_size(os.getpid())
        helpers = sum(
            proportional_size(process)
            for process in processes()
            if any(name in command_line(process) for name in HELPERS)
        )
    total = (ours + helpers) / MEGABYTE
    table.add(
        f"worker memory with {AT_ONCE} commands running, besides the commands",
        f"{total:.0f} MB",
        "≤ 250 MB",
        total <= 250,
        f"this process {ours / MEGABYTE:.0f} MB, its helpers {helpers / MEGABYTE:.0f} MB",
    )


async def prepares(sandbox: Sandbox, table: Table, tree: Path) -> None:
    """Open workspaces of one checkout, until a command has changed a file in each."""
    took = []
    for _ in range(PREPARES):
        began = time.perf_counter()
        async with sandbox.open(tree) as workspace:
            command = Command(("/bin/sh", "-c", "echo changed >folder-7/file-7"), ENVIRONMENT)
            async with workspace.start(command, Limits()) as process:
                await process.wait()
                took.append(time.perf_counter() - began)
    first, *others = took
    p50, p95 = percentile(others, 50), percentile(others, 95)
    table.add(
        f"prepare of the second run on {FILES:,} files, and a change in it",
        f"p50 {p50 * 1e3:.0f} ms, p95 {p95 * 1e3:.0f} ms",
        "≤ 300 ms",
        p95 <= 0.300,
        f"the first: {first * 1e3:.0f} ms",
    )


async def exports(sandbox: Sandbox, table: Table, tree: Path) -> None:
    """Take one change out of a large tree."""
    git = tree / ".git"
    index = git / "index"
    async with sandbox.open(tree, repository=git) as workspace:
        command = Command(("/bin/sh", "-c", "echo changed >folder-7/file-7"), ENVIRONMENT)
        async with workspace.start(command, Limits()) as process:
            await process.wait()
        began = time.perf_counter()
        change = await workspace.export(head(git), index)
        took = time.perf_counter() - began
    assert change.patch.count(b"diff --git") == 1, "one file was changed"
    table.add(f"one change out of {FILES:,} files as a patch", f"{took * 1e3:.0f} ms")


async def leftovers(sandbox: Sandbox, table: Table, runs: int) -> None:
    """Run commands that do nothing, each in a workspace of its own, and count what is left."""
    before = counts(sandbox)
    began = time.perf_counter()
    for _ in range(runs):
        async with (
            sandbox.open(None) as workspace,
            workspace.start(Command(("/bin/true",), ENVIRONMENT), Limits(), DOOR) as process,
        ):
            await process.wait()
    took = time.perf_counter() - began
    left = tuple(max(0, after - was) for after, was in zip(counts(sandbox), before, strict=True))
    table.add(
        f"{runs:,} runs of nothing: processes, mounts, descriptors, files left",
        ", ".join(map(str, left)),
        "0, 0, 0, 0",
        not any(left),
        f"{took / runs * 1e3:.0f} ms each, with a new workspace",
        exactness=True,
    )


def counts(sandbox: Sandbox) -> tuple[int, int, int, int]:
    """Return processes and mounts of sandboxes, descriptors of this process, temporary files."""
    owned = [process for process in processes() if owner(process) == sandbox.owner[0]]
    keepers = [process for process in processes() if b"keeper.fork_server" in command_line(process)]
    mounts = Path("/proc/self/mountinfo").read_text().count("\n")
    temporary = sum(len(os.listdir(folder)) for folder in (tempfile.gettempdir(), "/dev/shm"))
    return len({*owned, *keepers}), mounts, len(os.listdir("/proc/self/fd")), temporary


async def until_first_output(workspace: Workspace) -> float:
    """Return the seconds until a command in the sandbox has printed."""
    began = time.perf_counter()
    async with workspace.start(Command(ECHO, ENVIRONMENT), Limits(), DOOR) as process:
        await anext(process.lines())
        return time.perf_counter() - began


async def until_first_output_alone() -> float:
    """Return the seconds until the same program has printed without a sandbox."""
    began = time.perf_counter()
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*ECHO, stdout=pipe)
    assert process.stdout is not None, "it is piped"
    await process.stdout.readline()
    took = time.perf_counter() - began
    await process.wait()
    return took


@contextmanager
def many_files(sandbox: Sandbox) -> Iterator[Path]:
    """Make a checkout with many files until the block ends."""
    # In memory, because ext4 takes minutes to delete so many files that were just written.
    tree = Path(tempfile.mkdtemp(prefix="tollgate-bench-tree-", dir="/dev/shm"))
    try:
        for folder in range(FILES // 100):
            path = tree / f"folder-{folder}"
            path.mkdir()
            for file in range(100):
                (path / f"file-{file}").write_bytes(b"text\n")
        for step in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "begin"]):
            subprocess.run(["git", *_WHO, *step], cwd=tree, check=True)
        for path in (tree, *tree.rglob("*")):
            os.chown(path, *sandbox.owner)
        yield tree
    finally:
        shutil.rmtree(tree)


def head(git: Path) -> str:
    """Return the newest commit's id."""
    command = ["git", f"--git-dir={git}", "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def processes() -> list[int]:
    """Return the ids of all processes of this machine."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def owner(process: int) -> int | None:
    """Return the uid of a process, or None if it has ended."""
    try:
        return Path(f"/proc/{process}").stat().st_uid
    except OSError:
        return None


def command_line(process: int) -> bytes:
    """Return the arguments of a process, or nothing if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def proportional_size(process: int) -> int:
    """Return the bytes of memory of a process, with shared pages divided among their users."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def percentile(values: list[float], percent: int) -> float:
    """Return the value below which this share of the values lies."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))
