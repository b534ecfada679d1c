"""The container sandbox: the arguments that `docker` gets, and commands with a stand-in for it.

`SANDBOX_IMAGE` makes the other tests of this folder use a real engine.
"""

import asyncio
import csv
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from coding_tasks.sandbox.command import GATEWAY_PORT_INSIDE, PYTHON_INSIDE, Command
from coding_tasks.sandbox.docker import options
from coding_tasks.sandbox.docker.run import bytes_of
from coding_tasks.sandbox.docker.sandbox import Docker
from coding_tasks.sandbox.errors import WorkspaceFailed, WorkspaceLost
from coding_tasks.sandbox.interface import Limit, Limits, Storage, Workspace
from coding_tasks.sandbox.workspace import Purpose
from tests.coding_tasks.sandbox.conftest import ENVIRONMENT, QUICK, run, shell, until
from tests.coding_tasks.sandbox.test_egress import ask
from tests.coding_tasks.sandbox.test_export import Checkout

ROOT = Path(__file__).resolve().parents[3]
VOLUMES = {"/work": "w", "/home/agent": "h", "/tmp": "t", "/dev/shm": "s"}


def setup(**changes) -> options.Setup:
    given = options.Setup(
        image="image@sha256:0",
        runtime="",
        name="box",
        owner=(64_646, 64_646),
        storage=Storage(),
        folder=Path("/host/folder"),
        mounts={"/opt/agents/a": Path("/host/a,b")},
        tree=Path("/host/tree"),
        repository=Path("/host/repository"),
    )
    return replace(given, **changes)


def of_command(purpose: Purpose = Purpose.TASK, *, door: bool = False, **changes) -> list[str]:
    limits = Limits(memory=123_000_000, processes=40, open_files=50)
    return options.command(
        setup(**changes), "box-1", purpose, limits, VOLUMES, "program", door=door
    )


def pairs(arguments: list[str]) -> set[tuple[str, str]]:
    return set(pairwise(arguments))


def mounts(arguments: list[str]) -> dict[str, dict[str, str]]:
    """Return the mounts by their paths inside."""
    found = {}
    for name, value in pairwise(arguments):
        if name == "--mount":
            (row,) = csv.reader([value])
            fields = dict(part.partition("=")[::2] for part in row)
            found[fields["dst"]] = fields
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        of_command(),
        of_command(Purpose.EXPORT),
        of_command(Purpose.SAVE),
        of_command(door=True),
        options.holder(setup(), 1, 1),
        options.fill(setup(), VOLUMES),
    ],
)
def test_no_container_has_a_network_capabilities_or_a_writable_system(arguments):
    assert pairs(arguments) >= {
        ("--network", "none"),
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--log-driver", "none"),
        ("--pull", "never"),
    }
    assert {"--read-only", "--rm"} <= set(arguments)
    assert "--privileged" not in arguments
    assert not any("unconfined" in part for part in arguments)


def test_limits_are_the_engines():
    assert pairs(of_command()) >= {
        ("--memory", "123000000"),
        ("--memory-swap", "123000000"),
        ("--pids-limit", "48"),
        ("--ulimit", "nofile=50"),
        ("--ulimit", "core=0"),
        ("--user", "64646:64646"),
        ("--pid", "container:box"),
    }


def test_a_command_sees_its_volumes_and_what_is_mounted():
    shown = mounts(of_command())
    assert {path for path, mount in shown.items() if "readonly" not in mount} == set(VOLUMES)
    assert shown["/opt/agents/a"]["src"] == "/host/a,b"
    assert options.DOOR_INSIDE not in shown
    assert mounts(of_command(door=True))[options.DOOR_INSIDE]["src"] == "/host/folder/box-1.door"


def test_an_export_sees_the_tree_and_the_repository_read_only():
    shown = mounts(of_command(Purpose.EXPORT))
    assert set(shown) == {"/work", "/repository", "/etc/passwd", "/etc/group"}
    assert all("readonly" in mount for mount in shown.values())


def test_volumes_have_a_size():
    shown = mounts(options.holder(setup(), 5_000, 70))
    assert set(shown) == set(VOLUMES)
    assert "size=5000,nr_inodes=70,mode=700,uid=64646" in str(shown["/work"])
    temporary = [shown[path]["volume-opt"] for path in ("/tmp", "/dev/shm")]
    sizes = [int(options.split("size=")[1].split(",")[0]) for options in temporary]
    assert sum(sizes) == Storage().temporary_bytes


def test_a_runtime_is_passed_on_only_if_there_is_one():
    assert ("--runtime", "runsc") in pairs(of_command(runtime="runsc"))
    assert "--runtime" not in of_command()


@pytest.mark.parametrize(
    ("text", "size"), [("1.5MiB", 1_572_864), ("12kB ", 12_000), ("0B", 0), ("2GiB", 2**31)]
)
def test_sizes_of_the_engine_are_read(text, size):
    assert bytes_of(text) == size


def test_a_malformed_size_is_rejected():
    with pytest.raises(ValueError, match="not a size"):
        bytes_of("--")


@pytest.fixture
def engine(tmp_path, monkeypatch) -> Path:
    """Put the stand-in for `docker` on the path; return the folder of its state."""
    state, programs = tmp_path / "state", tmp_path / "programs"
    state.mkdir()
    programs.mkdir()
    fake = Path(__file__).with_name("fake_docker.py")
    docker = programs / "docker"
    docker.write_text(
        f'#!/bin/sh\nexport PYTHONPATH={ROOT}\nexec {sys.executable} {fake} {state} "$@"\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return state


@pytest_asyncio.fixture
async def workspace(engine) -> AsyncIterator[Workspace]:
    async with Docker("image:1").open(None) as opened:
        yield opened
    assert list(engine.glob("container-*")) == []


async def test_a_command_gets_its_arguments_environment_and_input(workspace):
    ran = await run(
        workspace,
        *("/bin/sh", "-c", 'echo "$1|$TOKEN|$(cat)|$(pwd)|$HOME"; echo bad >&2; exit 7', "sh"),
        "a b\n*",
        stdin=b"typed",
        environment=ENVIRONMENT | {"TOKEN": "two\nlines"},
    )
    assert ran.out == "a b\n*|two\nlines|typed|/work|/home/agent"
    assert (ran.err, ran.ended.status) == ("bad", 7)


async def test_secrets_are_not_among_the_arguments(workspace, engine):
    script = f'tr "\\0" " " </proc/self/cmdline; cat /proc/[0-9]*/cmdline {engine}/*'
    ran = await shell(workspace, script, environment=ENVIRONMENT | {"TOKEN": "run-token"})
    assert "run-token" not in ran.out
    assert ran.out


async def test_files_are_kept_between_commands(workspace):
    await shell(workspace, "echo 1 >/work/a; echo 2 >~/b; echo 3 >/tmp/c; echo 4 >/dev/shm/d")
    assert (await shell(workspace, "cat /work/a ~/b /tmp/c /dev/shm/d")).out == "1\n2\n3\n4"


async def test_stopping_ends_the_container(workspace, engine):
    command = Command(("/bin/sh", "-c", "echo up; sleep 987"), ENVIRONMENT)
    async with workspace.start(command, QUICK) as process:
        await anext(process.lines())
        process.kill()
        process.kill()
        ended = await process.wait()
    assert (ended.status, ended.limit, ended.stopped) == (None, None, True)
    assert len(list(engine.glob("container-*"))) == 1  # the one that holds the workspace


async def test_stopping_works_while_nobody_reads_the_output(workspace):
    async with workspace.start(Command(("/usr/bin/yes",), ENVIRONMENT), QUICK) as process:
        await until(process._chunks.full, "enough output")
    assert (await process.wait()).stopped


async def test_stopping_before_the_container_exists_works(workspace):
    async with workspace.start(Command(("/bin/sleep", "987"), ENVIRONMENT), QUICK) as process:
        process.kill()
        assert (await process.wait()).stopped


@pytest.mark.parametrize(
    ("limits", "script", "limit"),
    [
        ({"seconds": 1}, "sleep 987", Limit.SECONDS),
        ({"output": 1_000}, "yes", Limit.OUTPUT),
        ({"cpu_seconds": 0.3}, "sleep 987", Limit.CPU_SECONDS),  # the fake says it works hard
    ],
)
async def test_the_limit_that_ended_a_command_is_named(workspace, limits, script, limit):
    ended = (await shell(workspace, script, limits=replace(QUICK, **limits))).ended
    assert (ended.status, ended.limit, ended.stopped) == (None, limit, False)


async def test_a_command_that_the_engine_killed_for_its_memory_exceeded_it(workspace, engine):
    (engine / "oom").touch()
    ended = (await shell(workspace, "kill -9 $$")).ended
    assert (ended.status, ended.limit) == (None, Limit.MEMORY)


async def test_a_command_is_ended_if_one_of_its_processes_runs_out_of_memory(workspace, engine):
    command = Command(("/bin/sh", "-c", "echo up; sleep 987"), ENVIRONMENT)
    async with workspace.start(command, QUICK) as process:
        await anext(process.lines())
        (engine / "oom").touch()
        ended = await process.wait()
    assert (ended.status, ended.limit) == (None, Limit.MEMORY)


async def test_usage_is_what_the_engine_says(workspace):
    script = "until [ -e /tmp/go ]; do sleep 0.01; done"
    command = Command(("/bin/sh", "-c", script), ENVIRONMENT)
    async with workspace.start(command, QUICK) as process:
        async with asyncio.timeout(60):
            while not process._finished.done() and not await _measured(workspace, process):
                pass
        await shell(workspace, "touch /tmp/go")
        ended = await process.wait()
    assert ended.status == 0
    assert ended.peak_memory == bytes_of("1.5MiB")


async def _measured(workspace: Workspace, process) -> bool:
    """Run another command meanwhile; return whether the first one has been measured."""
    await shell(workspace, "true")
    return process._kill.__self__._peak > 0


async def test_the_gateway_answers_through_the_door(workspace, gateway):
    answers = await ask(workspace, gateway, "/slack_app/v1/messages", "/slack_app/v1/models")
    assert answers == ["200 first last"] * 2
    (other,) = await ask(workspace, gateway, "/metrics")
    assert other.startswith("403 ")
    assert gateway.targets == [b"/slack_app/v1/messages", b"/slack_app/v1/models"]


async def test_without_a_door_nothing_answers(workspace):
    code = "import socket; socket.create_connection(('127.0.0.1', 8010), 2)"
    ran = await run(workspace, "/opt/python/bin/python3", "-c", code)
    assert "ConnectionRefusedError" in ran.err


_LEAVES_A_CONNECTION = f"""
import os, socket, time
door = socket.create_connection(("127.0.0.1", {GATEWAY_PORT_INSIDE}), 5)
door.sendall(b"GET /slack_app/v1/slow HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
door.recv(1)
if os.fork() == 0:
    os.close(1)
    os.close(2)
    time.sleep(60)
print("left open")
"""


async def test_a_connection_that_a_command_leaves_open_ends_without_a_word(workspace, gateway):
    argv = (PYTHON_INSIDE, "-I", "-S", "-c", _LEAVES_A_CONNECTION)
    ran = await run(workspace, *argv, door=gateway.door())
    assert (ran.ended.status, ran.out, ran.err) == (0, "left open", "")


async def test_a_command_with_a_door_has_the_status_of_a_shell(workspace, gateway):
    for script, status in (("exit 9", 9), ("kill -SEGV $$", 139)):
        assert (await shell(workspace, script, door=gateway.door())).ended.status == status


async def test_the_change_of_a_tree_is_exported(engine, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("one\n")
    sandbox = Docker("image:1")
    checkout = Checkout.make(sandbox, tmp_path)
    async with checkout.opened(sandbox) as workspace:
        await shell(workspace, "echo two >>file; echo new >other")
        for index in (None, checkout.index):
            change = await workspace.export(checkout.commit, index)
            assert change.patch.count(b"diff --git") == 2
    assert (checkout.tree / "file").read_text() == "one\n"
    assert (checkout.apply(change) / "file").read_text() == "one\ntwo\n"


async def test_the_home_is_saved_and_restored(engine):
    sandbox = Docker("image:1")
    async with sandbox.open(None) as workspace:
        await shell(workspace, "mkdir -p ~/.claude; echo session >~/.claude/x")
        archive = await workspace.save_home((".claude", ".missing"))
    async with sandbox.open(None) as workspace:
        await workspace.restore_home(archive)
        assert (await shell(workspace, "cat ~/.claude/x")).out == "session"


async def test_a_lost_workspace_is_reported_as_lost(engine):
    async with Docker("image:1").open(None) as workspace:
        command = Command(("/bin/sh", "-c", "echo up; sleep 987"), ENVIRONMENT)
        async with workspace.start(command, QUICK) as process:
            await anext(process.lines())
            await workspace._client.ask("rm", "--force", workspace._setup.name)
            with pytest.raises(WorkspaceLost):
                await process.wait()
        with pytest.raises(WorkspaceLost):
            await shell(workspace, "true")


async def test_a_later_failure_of_the_engine_is_not_blamed_on_the_command(workspace, engine):
    (engine / "down").touch()
    with pytest.raises(WorkspaceFailed, match="could not be set up: docker: Cannot"):
        await shell(workspace, "true")
    (engine / "down").unlink()
    ran = await shell(workspace, "echo docker >&2; exit 125")
    assert ran.ended.status == 125


def test_a_machine_with_an_engine_has_this_sandbox(engine):
    assert Docker("image:1").why_missing() is None


def test_what_a_killed_worker_left_is_removed(engine):
    (engine / "leftover").touch()
    assert Docker("image:1").why_missing() is None
    assert not (engine / "leftover").exists()


def test_a_machine_without_it_gives_the_reason(engine, monkeypatch):
    assert "SANDBOX_IMAGE must name" in (Docker("").why_missing() or "")
    assert "No such image: missing:1" in (Docker("missing:1").why_missing() or "")
    (engine / "down").touch()
    assert "Cannot connect to the Docker daemon" in (Docker("image:1").why_missing() or "")
    monkeypatch.setenv("PATH", str(engine))
    assert "Docker is not installed" in (Docker("image:1").why_missing() or "")
