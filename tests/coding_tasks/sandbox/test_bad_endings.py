"""Commands that misbehave are ended or fail, and leave nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coding_tasks.sandbox.choice import KINDS, Choice
from coding_tasks.sandbox.command import PYTHON_INSIDE, Command
from coding_tasks.sandbox.docker.sandbox import Docker
from coding_tasks.sandbox.errors import WorkspaceLost
from coding_tasks.sandbox.interface import Limit, Storage
from coding_tasks.sandbox.keepers.sandbox import KeeperSandbox
from tests.coding_tasks.sandbox.conftest import ENVIRONMENT, QUICK, attempt, run, shell, until

MARK = f"98765.{os.getpid()}"
"""Seconds that the hostile processes here sleep. Their command lines contain it."""
SMALL = Storage(
    tree_bytes=8_000_000, tree_files=500, home_bytes=4_000_000, home_files=100,
    temporary_bytes=4_000_000, temporary_files=100,
)  # fmt: skip


def marked() -> list[str]:
    """Return the command lines of living processes that have the mark or are our gVisor's."""
    found = []
    ours = descendants(os.getpid())
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        hostile = MARK in line or ("runsc" in line and int(process.name) in ours)
        if hostile and str(os.getpid()) != process.name:
            found.append(line)
    return found


def descendants(ancestor: int) -> set[int]:
    """Return the ids of the processes that this one started, and of those that they started."""
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(process.name)] = int(fields[1])
    found = {ancestor}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {ancestor}


def living(ids: set[int]) -> set[int]:
    """Return which of the processes still exist, as zombies or otherwise."""
    return {process for process in ids if Path(f"/proc/{process}").exists()}


def mounts_of_ours() -> list[str]:
    """Return the mounts of this process, except for those of a Docker engine."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return [mount for mount in mounts if "docker" not in mount]


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail if a marked process, or a mount, is left after the test."""
    mounts = mounts_of_ours()
    yield
    assert marked() == []
    assert mounts_of_ours() == mounts


async def test_a_crash_is_distinguished_from_an_exit(workspace, nothing_left):
    crash = "import ctypes; ctypes.string_at(0)"
    ran = await run(workspace, PYTHON_INSIDE, "-S", "-c", crash)
    assert ran.ended.status == 128 + signal.SIGSEGV
    assert (await shell(workspace, "find /work /tmp -mindepth 1")).out == ""  # no core file


async def test_a_command_that_hangs_is_ended_at_its_time(workspace, nothing_left):
    script = f"trap '' TERM INT HUP; sleep {MARK} & sleep {MARK}"
    ended = (await shell(workspace, script, limits=replace(QUICK, seconds=0.5))).ended
    assert ended.limit is Limit.SECONDS


async def test_a_command_that_closes_its_output_and_hangs_is_ended(workspace, nothing_left):
    script = f"exec >&- 2>&-; sleep {MARK}"
    ended = (await shell(workspace, script, limits=replace(QUICK, seconds=0.5))).ended
    assert ended.limit is Limit.SECONDS


async def test_a_gigabyte_of_output_is_ended_early(workspace, nothing_left):
    limits = replace(QUICK, output=5_000_000)
    began = time.monotonic()
    for program in ("head -c 1000000000 /dev/zero", "yes", "yes >&2"):
        ran = await shell(workspace, program, limits=limits)
        assert ran.ended.limit is Limit.OUTPUT
        assert len(ran.out) + len(ran.err) <= limits.output
    assert time.monotonic() - began < 15


async def test_output_that_nobody_reads_pauses_the_command_and_uses_no_memory(
    workspace, nothing_left
):
    async with workspace.start(Command(("/usr/bin/yes",), ENVIRONMENT), QUICK) as process:
        await until(process._chunks.full, "enough output")
        await shell(workspace, "true")  # meanwhile, the last part is read that can be
        left = process._left
        await shell(workspace, "sleep 0.05")
        assert process._left == left


async def test_a_fork_bomb_is_bounded_and_ended(workspace, nothing_left):
    bomb = f"""
    import os, time
    made = 0
    try:
        while True:
            if os.fork() == 0:
                time.sleep({MARK})
            made += 1
    finally:
        print(made)
    """
    out = await attempt(workspace, bomb, limits=replace(QUICK, processes=40))
    made, refused = out.splitlines()
    assert refused == "refused: EAGAIN"
    assert 20 <= int(made) <= 60
    assert marked() == []  # its children outlived the program, but not the command


async def test_a_fork_bomb_that_goes_on_is_ended_at_its_time(workspace, nothing_left):
    limits = replace(QUICK, processes=40, seconds=0.5)
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    ended = (await run(workspace, PYTHON_INSIDE, "-S", "-c", bomb, limits=limits)).ended
    assert ended.limit is Limit.SECONDS


async def test_processes_of_one_workspace_do_not_count_in_another(sandbox, nothing_left):
    limits = replace(QUICK, processes=30)
    many = f"for n in $(seq 25); do sleep {MARK} & done; echo up; wait"
    command = Command(("/bin/sh", "-c", many), ENVIRONMENT)
    async with (
        sandbox.open(None) as one,
        sandbox.open(None) as other,
        one.start(command, limits) as first,
        other.start(command, limits) as second,
    ):
        for process in (first, second):
            assert (await anext(process.lines())).data == b"up"


async def test_a_daemon_ends_with_its_command(workspace, nothing_left):
    script = f"(setsid sh -c 'sleep {MARK} & sleep {MARK}' >/dev/null 2>&1 &); echo started"
    ran = await shell(workspace, script)
    assert (ran.out, ran.ended.status) == ("started", 0)


@pytest.mark.parametrize("folder", ["/work", "/home/agent", "/tmp", "/dev/shm"])
async def test_a_full_disk_fails_inside(sandbox, nothing_left, folder):
    code = f"""
    with open("{folder}/big", "wb") as big:
        for _ in range(1000):
            big.write(bytes(100_000))
    """
    async with sandbox.open(None, storage=SMALL) as workspace:
        assert await attempt(workspace, code) == "refused: ENOSPC"
        await shell(workspace, f"rm {folder}/big")
        assert (await shell(workspace, f"echo again >{folder}/a; cat {folder}/a")).out == "again"


@pytest.mark.parametrize("folder", ["/work", "/home/agent", "/tmp", "/dev/shm"])
async def test_a_lack_of_inodes_fails_inside(sandbox, nothing_left, folder):
    code = f"""
    for number in range(100_000):
        open(f"{folder}/{{number}}", "w").close()
    """
    async with sandbox.open(None, storage=SMALL) as workspace:
        assert await attempt(workspace, code) == "refused: ENOSPC"


async def test_a_checkouts_changes_are_bounded_too(sandbox, tmp_path, nothing_left):
    if isinstance(sandbox, Docker):
        pytest.skip("the whole checkout is copied when the workspace is opened")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "big").write_bytes(bytes(9_000_000))
    for path in (tree, tree / "big"):
        os.chown(path, *sandbox.owner)
    async with sandbox.open(tree, storage=SMALL) as workspace:
        # To change a byte, the whole file is copied above the checkout.
        assert await attempt(workspace, 'open("/work/big", "r+b")') == "refused: ENOSPC"


async def test_a_file_that_grows_too_large_is_refused(workspace, nothing_left):
    code = """
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("/work/big", "wb") as big:
        big.truncate(2_000_000)
    """
    limits = replace(QUICK, file_size=1_000_000)
    assert await attempt(workspace, code, limits=limits) == "refused: EFBIG"


async def test_too_many_open_files_are_refused(workspace, nothing_left):
    code = 'files = [open("/dev/null") for _ in range(100)]'
    limits = replace(QUICK, open_files=50)
    assert await attempt(workspace, code, limits=limits) == "refused: EMFILE"


@pytest.mark.parametrize(
    "bomb",
    [
        "kept = []\nwhile True: kept.append(b'x' * 10_000_000)",
        "import mmap\nkept = mmap.mmap(-1, 4_000_000_000)\n"
        "for n in range(0, 4_000_000_000, 4096): kept[n] = 1",
        "import os\nfor n in range(8): os.fork()\nx = b'x' * 40_000_000\n"
        "import time; time.sleep(99)",
        "import os\nfor n in range(9):\n"
        "    fd = os.memfd_create('bomb')\n"
        "    for m in range(30): os.write(fd, bytes(1_000_000))\n"
        "import time; time.sleep(99)",
    ],
    ids=["one process", "shared memory", "many processes", "files in memory"],
)
async def test_a_memory_bomb_is_ended(workspace, nothing_left, bomb):
    limits = replace(QUICK, memory=150_000_000, processes=300)
    ran = await run(workspace, PYTHON_INSIDE, "-S", "-c", bomb, limits=limits)
    assert ran.ended.limit is Limit.MEMORY
    assert ran.ended.peak_memory >= limits.memory


async def test_memory_that_processes_share_counts_once(workspace, nothing_left):
    code = "x = b'x' * 40_000_000\nimport os, time\nfor n in range(3): os.fork()\ntime.sleep(0.5)"
    limits = replace(QUICK, memory=150_000_000)
    ran = await run(workspace, PYTHON_INSIDE, "-S", "-c", code, limits=limits)
    assert (ran.ended.status, ran.ended.limit) == (0, None)


async def test_a_zip_bomb_is_only_as_large_as_the_disk(sandbox, nothing_left):
    make = "head -c 200000000 /dev/zero | gzip >bomb.gz; gunzip bomb.gz"
    async with sandbox.open(None, storage=SMALL) as workspace:
        ran = await shell(workspace, make)
        assert "No space left" in ran.err
        assert ran.ended.status != 0


_WORKER = """
import asyncio, sys
from coding_tasks.sandbox import choice
from coding_tasks.sandbox.command import Command
from coding_tasks.sandbox.interface import Door, Limits

async def work():
    door = Door("http://127.0.0.1:9", "slack_app")
    sleep = f"sleep {sys.argv[1]}"
    hostile = f"(setsid sh -c 'trap : TERM INT HUP; {sleep}' &); echo up; {sleep}"
    command = Command(("/bin/sh", "-c", hostile), {"PATH": "/bin"})
    async with (
        choice.from_environment().sandbox().open(None) as workspace,
        workspace.start(command, Limits(), door) as process,
    ):
        async for line in process.lines():
            print(line.text, flush=True)

asyncio.run(work())
"""


def test_a_killed_worker_leaves_nothing(sandbox, nothing_left):
    (kind,) = [kind for kind in KINDS if type(Choice(kind).sandbox()) is type(sandbox)]
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, MARK],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"SANDBOX": kind},
    )
    with worker:
        assert worker.stdout.readline() == "up\n"
        started = descendants(worker.pid)
        assert len(marked()) >= 2
        assert len(started) >= 3  # the sandbox's helpers, and usually its command
        worker.kill()
        worker.wait()
    began = time.monotonic()
    while living(started) or marked():
        assert time.monotonic() - began < 20, "something outlived the worker"
        time.sleep(0.01)


async def test_a_killed_keeper_leaves_nothing(sandbox, nothing_left):
    if not isinstance(sandbox, KeeperSandbox):
        pytest.skip("it has no keeper")
    hostile = f"(setsid sh -c 'trap : TERM INT HUP; sleep {MARK}' &); echo up; sleep {MARK}"

    async def lose() -> None:
        command = Command(("/bin/sh", "-c", hostile), ENVIRONMENT)
        async with sandbox.open(None) as workspace, workspace.start(command, QUICK) as process:
            assert (await anext(process.lines())).text == "up"
            os.kill(workspace._keeper.pid, signal.SIGKILL)
            with pytest.raises(WorkspaceLost):
                await process.wait()

    await lose()
    descriptors, processes = len(os.listdir("/proc/self/fd")), descendants(os.getpid())
    for _ in range(3):
        await lose()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    await until(
        lambda: not marked() and not living(descendants(os.getpid()) - processes),
        "the end of every process",
    )


async def test_many_runs_leave_nothing(sandbox, nothing_left):
    async def no_op() -> None:
        async with sandbox.open(None) as workspace:
            for _ in range(3):
                await shell(workspace, "true")

    await no_op()
    descriptors, processes = len(os.listdir("/proc/self/fd")), descendants(os.getpid())
    for _ in range(5):
        await no_op()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    began = time.monotonic()
    while left := living(descendants(os.getpid()) - processes):
        assert time.monotonic() - began < 20, f"these outlived their workspaces: {left}"
        await asyncio.sleep(0.01)
