"""A workspace in volumes that one container holds, and a container for each command in it."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from coding_tasks.sandbox import export, launcher_input, seccomp
from coding_tasks.sandbox.command import GATEWAY_PORT_INSIDE, Command
from coding_tasks.sandbox.docker import options
from coding_tasks.sandbox.docker.client import Client
from coding_tasks.sandbox.docker.run import KILLED, ContainerRun, End
from coding_tasks.sandbox.door.relay import Relay
from coding_tasks.sandbox.errors import WorkspaceFailed, WorkspaceLost
from coding_tasks.sandbox.interface import Limit, Limits
from coding_tasks.sandbox.process import STREAMS, RunningCommand
from coding_tasks.sandbox.workspace import BaseWorkspace, Purpose

_READY_WITHIN = 60.0
_GONE_WITHIN = 10.0
_WATCH = 10
"""Seconds for which the engine's events are watched at a time."""
_AGAIN = 1.0
"""Seconds before an engine that failed is asked again."""
_VOLUMES = "{{range .Mounts}}{{.Destination}} {{.Name}}\n{{end}}"
_LOST = "the container that held the workspace is gone"
_BLOCK = 4096
"""Bytes that even the smallest file takes in memory."""


class DockerWorkspace(BaseWorkspace):
    """See `coding_tasks.sandbox.interface.Workspace`."""

    def __init__(
        self,
        client: Client,
        setup: options.Setup,
        holder: asyncio.subprocess.Process,
        volumes: Mapping[str, str],
    ) -> None:
        super().__init__(has_repository=setup.repository is not None)
        self._client = client
        self._setup = setup
        self._holder = holder
        self._volumes = volumes
        self._runs: dict[str, ContainerRun] = {}
        self._numbers = count(1)

    async def _begin(
        self,
        process: RunningCommand,
        purpose: Purpose,
        command: Command,
        limits: Limits,
        relay: Relay | None = None,
        index: bytes | None = None,
    ) -> None:
        if self._holder.returncode is not None:
            raise WorkspaceLost(_LOST)
        if index is not None:
            command = _with_index(command, index)
        name = f"{self._setup.name}-{next(self._numbers)}"
        door = self._setup.folder / f"{name}.door"
        if relay is not None:
            _listen(relay, door)
        given = _given(command, relay is not None) + command.stdin
        arguments = options.command(
            *(self._setup, name, purpose, limits, self._volumes, launcher_input.PROGRAM),
            door=relay is not None,
        )
        with ExitStack() as stack:
            file = stack.enter_context(os.fdopen(os.memfd_create("given"), "w+b", 0))
            file.write(given)
            file.seek(0)
            pipes = {stream: os.pipe() for stream in STREAMS}
            for _, writer in pipes.values():
                stack.callback(os.close, writer)
            cli = await self._client.start(
                arguments,
                stdin=file.fileno(),
                stdout=pipes["stdout"][1],
                stderr=pipes["stderr"][1],
            )
        run = self._runs[name] = ContainerRun(self._client, name, limits, process)
        ended = asyncio.create_task(self._end(run, cli))
        ended.add_done_callback(lambda _: self._runs.pop(name))
        finished: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ended.add_done_callback(lambda task: _pass_on(task, finished))
        process.follow(finished, {name: reader for name, (reader, _) in pipes.items()}, run.kill)

    async def _end(self, run: ContainerRun, cli: asyncio.subprocess.Process) -> End:
        end = await run.follow(cli)
        unexplained = not end.started or (end.status == KILLED and end.limit is None)
        if unexplained and await self._is_lost():
            raise WorkspaceLost(_LOST)
        return end

    async def watch(self) -> None:
        """End the commands that ran out of memory, according to the engine.

        The kernel kills only one process then, which is not always the command itself.
        """
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        since = int(time.time())
        while True:
            until = int(time.time()) + _WATCH
            arguments = options.memory_events(self._setup, since, until)
            cli = await self._client.start(arguments, stdin=null, stdout=pipe, stderr=null)
            assert cli.stdout is not None, "it is piped"
            try:
                while line := await cli.stdout.readline():
                    if run := self._runs.get(line.decode().strip()):
                        run.exceed(Limit.MEMORY)
            finally:
                if cli.returncode is None:
                    cli.kill()
                await cli.wait()
            if cli.returncode != 0:  # the engine is gone, at least for now
                await asyncio.sleep(_AGAIN)
            since = until

    async def _is_lost(self) -> bool:
        """Return whether the container that holds the workspace is gone."""
        if self._holder.returncode is None:
            try:
                await self._client.ask("inspect", "--format", "{{.Id}}", self._setup.name)
            except WorkspaceFailed as error:
                return "no such" in str(error).lower()
        return self._holder.returncode is not None


def _pass_on(task: asyncio.Task[End], finished: asyncio.Future[Any]) -> None:
    if (error := task.exception()) is not None:
        finished.set_exception(error)
        finished.exception()  # otherwise asyncio complains if nobody awaits it
    else:
        finished.set_result(task.result())


def _given(command: Command, door: bool) -> bytes:
    way = (GATEWAY_PORT_INSIDE, options.DOOR_INSIDE) if door else (0, "")
    return launcher_input.encode(command.argv, command.environment, seccomp.build(), door=way)


def _with_index(command: Command, index: bytes) -> Command:
    """Return the command after one that writes its standard input as the index."""
    script = f'cat >{export.INDEX_INSIDE}; exec "$@"'
    return replace(command, argv=("/bin/sh", "-c", script, "sh", *command.argv), stdin=index)


def _listen(relay: Relay, path: Path) -> None:
    """Let the relay listen at a Unix socket, which is mounted in the container."""
    listening = socket.socket(socket.AF_UNIX)
    # The path can be too long for a socket's address, so it goes through its folder's descriptor.
    folder = os.open(path.parent, os.O_PATH)
    try:
        listening.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    path.chmod(0o666)
    listening.listen(128)
    relay.listen(listening)


@asynccontextmanager
async def opened(client: Client, setup: options.Setup) -> AsyncIterator[DockerWorkspace]:
    """Provide a workspace until the block ends. Raises `WorkspaceFailed`."""
    _write_users(setup)
    more_bytes, more_files = await asyncio.to_thread(_size, setup.tree)
    storage = setup.storage
    arguments = options.holder(
        setup, storage.tree_bytes + more_bytes, storage.tree_files + more_files
    )
    pipe = asyncio.subprocess.PIPE
    holder = await client.start(arguments, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        await _ready(holder)
        said = await client.ask("inspect", "--format", _VOLUMES, setup.name)
        volumes = dict(line.split(" ") for line in said.splitlines() if line)
        if setup.tree is not None:
            await client.ask(*options.fill(setup, volumes))
        workspace = DockerWorkspace(client, setup, holder, volumes)
        watching = asyncio.create_task(workspace.watch())
        try:
            yield workspace
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    finally:
        await asyncio.shield(_close(client, setup, holder))


async def _ready(holder: asyncio.subprocess.Process) -> None:
    assert holder.stdout is not None, "it is piped"
    assert holder.stderr is not None, "it is piped"
    try:
        async with asyncio.timeout(_READY_WITHIN):
            if await holder.stdout.readline() == b"ready\n":
                return
            complaint = (await holder.stderr.readline()).decode("utf-8", "replace").strip()
    except TimeoutError as error:
        raise WorkspaceFailed("the engine did not start a container in time") from error
    raise WorkspaceFailed(f"the engine could not start a container: {complaint}")


async def _close(client: Client, setup: options.Setup, holder: asyncio.subprocess.Process) -> None:
    """End the container, whose volumes the engine then removes."""
    assert holder.stdin is not None, "it is piped"
    holder.stdin.close()
    try:
        async with asyncio.timeout(_GONE_WITHIN):
            await holder.communicate()
    except TimeoutError:
        with contextlib.suppress(WorkspaceFailed):
            await client.ask("rm", "--force", "--volumes", setup.name)
        holder.kill()
        await holder.wait()


def _write_users(setup: options.Setup) -> None:
    uid, gid = setup.owner
    passwd = f"agent:x:{uid}:{gid}:agent:/home/agent:/bin/sh\n"
    for name, text in (("passwd", passwd), ("group", f"agent:x:{gid}:\n")):
        path = setup.folder / name
        path.write_text(text)
        path.chmod(0o644)


def _size(tree: Path | None) -> tuple[int, int]:
    """Return what a checkout takes in memory: bytes, and the number of files and folders."""
    if tree is None:
        return 0, 0
    total = files = 0
    for folder, folders, names in os.walk(tree):
        files += len(folders) + len(names)
        for name in names:
            size = os.lstat(os.path.join(folder, name)).st_size
            total += -(-size // _BLOCK) * _BLOCK
    return total, files + 1
