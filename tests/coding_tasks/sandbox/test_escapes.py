"""Hostile code that tries to leave the sandbox, or to see what is outside. Each attempt fails."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from coding_tasks.sandbox.command import PYTHON_INSIDE, Command
from coding_tasks.sandbox.docker.sandbox import Docker
from coding_tasks.sandbox.gvisor.sandbox import GVisor
from coding_tasks.sandbox.keepers.fork_server import SERVER
from tests.coding_tasks.sandbox.conftest import (
    ENVIRONMENT,
    QUICK,
    attempt,
    existing,
    run,
    shell,
)

CANARY = "canary-8f14e45fceea167a"
"""A secret of the worker. No byte of it may be seen inside."""
_LOOK = """\
import glob, os, sys
seen = 0
for name in sys.argv[2:]:
    for path in glob.glob(name):
        try:
            with open(path, "rb") as file:
                data = file.read(1_000_000)
        except OSError:
            continue
        seen += 1
        if sys.argv[1][::-1].encode() in data:
            print("FOUND", path)
print("looked at", seen)
"""


async def look(workspace, *patterns: str) -> list[str]:
    """Look for the canary in files; return what was found. The program gets it backwards."""
    ran = await run(workspace, PYTHON_INSIDE, "-I", "-S", "-c", _LOOK, CANARY[::-1], *patterns)
    assert ran.ended.status == 0, ran.err
    *found, looked = ran.out.splitlines()
    assert looked != "looked at 0"
    return found


@pytest.fixture
def canary(sandbox, monkeypatch) -> Iterator[None]:
    """A secret in the worker's environment when the first process of ours is started."""
    monkeypatch.setenv("SECRET_KEY", CANARY)
    SERVER.stop()
    yield
    SERVER.stop()


async def test_the_workers_environment_is_not_in_proc(canary, sandbox):
    async with sandbox.open(None) as workspace:
        assert await look(workspace, "/proc/[0-9]*/environ", "/proc/[0-9]*/cmdline") == []


async def test_other_processes_of_the_host_are_not_visible(workspace):
    assert 1 <= len((await shell(workspace, "echo /proc/[0-9]*")).out.split()) <= 5
    assert await existing(workspace, f"/proc/{os.getpid()}") == []


_READ_MEMORY = """\
import glob, sys
seen = 0
for process in glob.glob("/proc/[0-9]*"):
    try:
        with open(f"{process}/maps") as maps, open(f"{process}/mem", "rb") as memory:
            for line in maps:
                begin, end = (int(part, 16) for part in line.split()[0].split("-"))
                try:
                    memory.seek(begin)
                    data = memory.read(end - begin)
                except (OSError, OverflowError, ValueError):
                    continue
                seen += 1
                if sys.argv[1][::-1].encode() in data:
                    print("FOUND", process, line)
    except OSError:
        continue
print("looked at", seen)
"""


async def test_the_workers_memory_cannot_be_read(canary, sandbox):
    async with sandbox.open(None) as workspace:
        program = (PYTHON_INSIDE, "-I", "-S", "-c", _READ_MEMORY, CANARY[::-1])
        ran = await run(workspace, *program)
    *found, looked = ran.out.splitlines()
    assert looked != "looked at 0", ran.err
    assert found == []


@pytest.fixture
def inherited(sandbox, tmp_path) -> Iterator[Path]:
    """A file that this process has open, and passes on to programs that it starts."""
    path = tmp_path / "inherited-log"
    SERVER.stop()
    with path.open("w") as file:
        os.set_inheritable(file.fileno(), True)
        yield path
    SERVER.stop()


async def test_no_descriptor_of_the_worker_is_passed_on(inherited, sandbox):
    async with sandbox.open(None) as workspace:
        program = "for path in /proc/self/fd/* /proc/1/fd/*; do readlink $path; done"
        inside = (await shell(workspace, program)).out
    assert inside
    for name in (inherited.name, "memfd:argv", "memfd:filter", "socket:"):
        assert name not in inside


async def test_trees_of_other_runs_are_not_visible(sandbox):
    async with sandbox.open(None) as one, sandbox.open(None) as other:
        await shell(one, f"echo {CANARY} >/work/a; echo {CANARY} >/tmp/b; echo {CANARY} >~/c")
        assert (
            await look(
                other,
                "/work/*",
                "/tmp/*",
                "/home/*/*",
                "/tmp/*/*/*",
                "/proc/*/root/work/*",
                "/proc/self/status",
            )
            == []
        )


def words_of_the_host(*names: str) -> set[str]:
    """Return the words in those of the files below /etc that the host has."""
    paths = [Path("/etc", name) for name in names]
    return {word for path in paths if path.exists() for word in path.read_text().split()}


async def test_homes_and_the_rest_of_the_hosts_files_are_not_visible(sandbox, workspace, tmp_path):
    folders = "find /home /work /srv /var /run /mnt -mindepth 1 -maxdepth 1"
    if not isinstance(sandbox, Docker):  # an image has its own
        assert (await shell(workspace, folders)).out.split() == ["/home/agent", "/var/tmp"]
    # Below root's home there is at most the worker's Python.
    others = f"find /root -not -path '{sys.base_prefix}/*' -not -type d"
    assert (await shell(workspace, others)).out == ""
    assert await existing(workspace, str(tmp_path), str(Path.cwd())) == []
    secrets = (await shell(workspace, "cat /etc/shadow /etc/hostname /etc/machine-id")).out
    assert not words_of_the_host("shadow", "hostname", "machine-id") & {*secrets.split()}


async def test_the_hosts_name_and_users_are_not_visible(workspace):
    assert (await shell(workspace, "uname -n; cut -d: -f1 /etc/passwd")).out == "sandbox\nagent"


@pytest.mark.parametrize(
    "path", ["/", "/usr", "/usr/bin", "/etc", "/opt/python", "/dev", "/var", "/proc"]
)
async def test_nothing_outside_the_workspace_can_be_written(sandbox, workspace, path):
    if path == "/dev" and isinstance(sandbox, GVisor):
        pytest.skip("each command in gVisor has a /dev of its own, in its own memory")
    refused = await attempt(workspace, f'open("{path}/planted", "w")')
    assert refused in ("refused: EROFS", "refused: EACCES", "refused: ENOENT", "refused: EPERM")
    assert not os.access(f"{path}/planted", os.F_OK)


async def test_files_of_the_system_cannot_be_changed(workspace):
    refused = await attempt(workspace, 'open("/bin/sh", "r+b")')
    assert refused in ("refused: EROFS", "refused: EACCES")
    refused = await attempt(workspace, 'open("/etc/passwd", "a")')
    assert refused in ("refused: EROFS", "refused: EACCES")
    refused = await attempt(workspace, 'import os; os.rename("/usr/bin/id", "/usr/bin/gone")')
    assert refused in ("refused: EROFS", "refused: EACCES")


async def test_an_agents_installation_cannot_be_changed(sandbox, tmp_path):
    installed = tmp_path / "agent"
    installed.mkdir()
    (installed / "program").write_text("ours")
    for path in (installed, installed / "program"):
        path.chmod(0o777)
    async with sandbox.open(None, mounts={"/opt/agents/a": installed}) as workspace:
        for code in (
            'open("/opt/agents/a/program", "w")',
            'open("/opt/agents/a/sitecustomize.py", "w")',
            'import os; os.unlink("/opt/agents/a/program")',
            'import os; os.chmod("/opt/agents/a/program", 0o4755)',
        ):
            assert await attempt(workspace, code) in ("refused: EROFS", "refused: EPERM")
    assert [path.name for path in installed.iterdir()] == ["program"]
    assert (installed / "program").read_text() == "ours"


async def test_a_setuid_file_gives_no_other_user(sandbox, workspace):
    copy = f"cp $(readlink -f {PYTHON_INSIDE}) python; chmod 6755 python; [ -u python ] && echo set"
    assert (await shell(workspace, copy)).out == "set"
    uids = "import os; print(os.getresuid())"
    environment = {"PYTHONHOME": "/opt/python"}
    ran = await run(workspace, "/work/python", "-S", "-c", uids, environment=environment)
    uid = sandbox.owner[0] if isinstance(sandbox, Docker) else 1000
    assert ran.out == f"({uid}, {uid}, {uid})", ran.err


async def test_programs_of_the_system_give_no_other_user(workspace):
    code = "import ctypes; print(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))"  # no new privileges
    assert (await run(workspace, PYTHON_INSIDE, "-S", "-c", code)).out == "1"


async def test_no_file_of_the_host_gives_another_user(sandbox, workspace):
    if not isinstance(sandbox, Bubblewrap):
        pytest.skip("only bubblewrap shows the host's mounts themselves")
    mounted = "findmnt --noheadings --output OPTIONS --target"
    options = (await shell(workspace, f"{mounted} /usr; {mounted} /work; {mounted} /tmp")).out
    assert [("nosuid" in line, "nodev" in line) for line in options.splitlines()] == [
        (True, True)
    ] * 3


def mounts_of_this_process() -> str:
    return Path("/proc/self/mountinfo").read_text()


async def test_the_hosts_mounts_stay_as_they_are(workspace):
    before = mounts_of_this_process()
    await shell(workspace, "cp /bin/sh /work/planted; chmod 6755 /work/planted")
    assert mounts_of_this_process() == before
    assert not os.access("/tmp/tree", os.F_OK)  # where the keeper has it


async def test_a_hard_link_out_is_refused(workspace):
    assert (
        await attempt(workspace, 'import os; os.link("/etc/passwd", "/work/a")') == "refused: EXDEV"
    )
    assert (
        await attempt(workspace, 'import os; os.link("/usr/bin/id", "/work/a")') == "refused: EXDEV"
    )


async def test_a_symbolic_link_out_leads_nowhere_else(workspace, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    await shell(
        workspace, f"ln -s {secret} a; ln -s / b; ln -s /proc/1/root c; ln -s /proc/1/cwd d"
    )
    name = words_of_the_host("hostname")
    assert name
    through = "cat b/etc/hostname c/etc/hostname d/etc/hostname; ln -s /etc/hostname e; cat e"
    assert not name & {*(await shell(workspace, through)).out.split()}
    links = (f"/work/{name}" for name in ("a", f"b{secret}", f"c{secret}", f"d{secret}"))
    assert await look(workspace, "/proc/self/status", *links) == []


async def test_device_files_cannot_be_made(workspace):
    for kind in ("S_IFBLK", "S_IFCHR"):
        code = f"""
        import os, stat
        os.mknod("/work/disk", stat.{kind} | 0o666, os.makedev(8, 0))
        os.open("/work/disk", os.O_RDWR)
        """
        assert await attempt(workspace, code) == "refused: EPERM"
    devices = (await shell(workspace, "find /dev -type b -o -type c | sort")).out.split()
    assert {*devices} <= {
        *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"),
        *("/dev/pts/ptmx", "/dev/ptmx", "/dev/console"),
        *("/dev/fuse", "/dev/net/tun"),  # gVisor's own, which it does not pass on
    }


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("mount", 'check(libc.mount(b"none", b"/work", b"tmpfs", 0, None))'),
        ("bind mount", 'check(libc.mount(b"/proc", b"/work", None, 4096, None))'),
        ("remount", 'check(libc.mount(None, b"/usr", None, 32 | 4096, None))'),
        ("umount", 'check(libc.umount2(b"/usr", 2))'),
        ("pivot_root", 'check(libc.syscall(155, b"/work", b"/work"))'),
        ("chroot", 'os.chroot("/work")'),
        ("user namespace", "check(libc.unshare(0x10000000))"),
        ("mount namespace", "check(libc.unshare(0x00020000))"),
        ("network namespace", "check(libc.unshare(0x40000000))"),
        ("clone into a user namespace", "check(min(0, libc.syscall(56, 0x10000011, 0, 0, 0, 0)))"),
        ("setns", 'check(libc.setns(os.open("/proc/1/ns/net", os.O_RDONLY), 0))'),
        ("fsopen", 'check(min(0, libc.syscall(430, b"tmpfs", 0)))'),
        ("ptrace", "check(libc.ptrace(16, 1, 0, 0))"),
        ("ptrace of itself", "check(libc.ptrace(0, 0, 0, 0))"),
        ("process_vm_readv", "check(min(0, libc.process_vm_readv(1, None, 0, None, 0, 0)))"),
        ("io_uring", "check(min(0, libc.syscall(425, 8, buffer)))"),
        ("userfaultfd", "check(min(0, libc.syscall(323, 1)))"),
        ("bpf", "check(min(0, libc.syscall(321, 0, buffer, 120)))"),
        ("perf events", "check(min(0, libc.syscall(298, buffer, 0, -1, -1, 0)))"),
        ("add_key", 'check(min(0, libc.syscall(248, b"user", b"a", b"b", 1, -3)))'),
        ("keyctl", "check(min(0, libc.syscall(250, 0, -3, 1)))"),
        ("personality", "check(min(0, libc.personality(0x0040000)))"),
        ("open by handle", "check(min(0, libc.syscall(304, -100, buffer, 0)))"),
        ("the clock", "import time; time.clock_settime(0, 0)"),
        ("the host's name", 'import socket; socket.sethostname("x")'),
        ("reboot", "check(libc.syscall(169, 0xfee1dead, 672274793, 0))"),
        ("loading a module", 'check(min(0, libc.syscall(313, 0, b"", 0)))'),
        ("the kernel's log", "check(min(0, libc.klogctl(3, buffer, 9)))"),
    ],
)  # fmt: skip
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names calls by x86-64's numbers")
async def test_a_call_to_the_kernel_is_refused(workspace, what, code):
    program = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(128)
def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "refused")
{code}
"""
    assert await attempt(workspace, program) in ("refused: EPERM", "refused: EACCES")


async def test_the_second_numbering_of_calls_is_refused(workspace):
    code = """
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(0x40000000 + 101, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "refused")
    """
    assert await attempt(workspace, code) == "refused: ENOSYS"


async def test_there_are_no_capabilities_to_use(workspace):
    found = (await shell(workspace, "grep ^Cap /proc/self/status | cut -f2 | sort -u")).out
    assert found == "0000000000000000"


async def test_the_number_of_user_namespaces_cannot_be_raised(workspace):
    code = 'open("/proc/sys/user/max_user_namespaces", "w").write("100")'
    assert (await attempt(workspace, code)).startswith("refused")


async def test_a_terminal_cannot_be_written_to(workspace):
    refused = await attempt(workspace, 'import os; os.open("/dev/tty", os.O_RDWR)')
    assert refused in ("refused: ENXIO", "refused: EIO")


async def test_terminal_escapes_are_taken_out_of_the_text(workspace):
    script = (
        r"printf '\033]0;owned\007\033[2J\033[31mred\033[0m \302\23331m \342\200\256abc\r\tok\n'"
    )
    command = Command(("/bin/sh", "-c", script), ENVIRONMENT)
    async with workspace.start(command, QUICK) as process:
        lines = [line async for line in process.lines()]
    assert b"\x1b" in lines[0].data
    assert lines[0].text == "]0;ownedred 31m abc\tok"
