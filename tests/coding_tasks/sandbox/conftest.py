"""A sandbox, a workspace in it, hostile code, and a gateway that notes what reaches it."""

import asyncio
import os
import shutil
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h11
import pytest
import pytest_asyncio

from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from coding_tasks.sandbox.command import HOME_INSIDE, PYTHON_INSIDE, Command
from coding_tasks.sandbox.docker.sandbox import Docker
from coding_tasks.sandbox.gvisor.sandbox import GVisor
from coding_tasks.sandbox.interface import Door, Ended, Limits, Sandbox, Workspace
from coding_tasks.sandbox.keepers.fork_server import SERVER

QUICK = Limits(seconds=90, memory=400_000_000, processes=64)
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME_INSIDE}
_ATTEMPT = """\
import errno, sys
try:
{code}
except OSError as error:
    print("refused:", errno.errorcode.get(error.errno, error))
else:
    print("ESCAPED")
"""


def _needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def _docker() -> Docker:
    return Docker(os.environ["SANDBOX_IMAGE"])


SANDBOXES = [
    pytest.param(Bubblewrap, id="bubblewrap"),
    pytest.param(GVisor, id="gvisor", marks=_needs("runsc")),
    pytest.param(
        _docker,
        id="docker",
        marks=pytest.mark.skipif(
            not os.environ.get("SANDBOX_IMAGE"), reason="SANDBOX_IMAGE names no image"
        ),
    ),
]


@pytest.fixture(scope="session", params=SANDBOXES)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """Each kind of sandbox. If one doesn't work here, its tests are skipped with the reason."""
    found = request.param()
    if reason := found.why_missing():
        pytest.skip(f"this sandbox doesn't work here: {reason}")
    return found


@pytest_asyncio.fixture
async def workspace(sandbox: Sandbox) -> AsyncIterator[Workspace]:
    """An empty workspace."""
    async with sandbox.open(None) as opened:
        yield opened


@dataclass(frozen=True)
class Ran:
    """A command that has ended, and what it printed."""

    ended: Ended
    out: str
    err: str


async def run(
    workspace: Workspace,
    *argv: str,
    limits: Limits = QUICK,
    door: Door | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] = ENVIRONMENT,
) -> Ran:
    """Run a command to its end."""
    kept: dict[str, list[str]] = {"stdout": [], "stderr": []}
    async with workspace.start(Command(argv, environment, stdin), limits, door) as process:
        async for line in process.lines():
            kept[line.stream].append(line.data.decode("utf-8", "replace"))
        ended = await process.wait()
    return Ran(ended, "\n".join(kept["stdout"]), "\n".join(kept["stderr"]))


async def shell(workspace: Workspace, script: str, **options) -> Ran:
    """Run a shell script to its end."""
    return await run(workspace, "/bin/sh", "-c", script, **options)


async def existing(workspace: Workspace, *paths: str) -> list[str]:
    """Return which of these paths exist inside."""
    script = 'for path in "$@"; do [ -e "$path" ] && echo "$path"; done; true'
    return (await run(workspace, "/bin/sh", "-c", script, "sh", *paths)).out.splitlines()


async def attempt(workspace: Workspace, code: str, **options) -> str:
    """Run hostile Python; return "ESCAPED", or "refused:" and the error's name."""
    indented = textwrap.indent(textwrap.dedent(code), "    ")
    program = _ATTEMPT.format(code=indented)
    ran = await run(workspace, PYTHON_INSIDE, "-I", "-S", "-c", program, **options)
    assert not ran.err, ran.err
    return ran.out


def owned(sandbox: Sandbox, tree: Path) -> Path:
    """Give a tree to the sandbox's user, as the code that makes checkouts does."""
    uid, gid = sandbox.owner
    for path in (tree, *tree.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)
    return tree


@dataclass
class FakeGateway:
    """An HTTP server on the host that notes each request, and can answer slowly."""

    port: int = 0
    requests: list[tuple[bytes, bytes, dict[bytes, bytes], bytes]] = field(default_factory=list)
    connections: int = 0
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """Answers to paths that end in /slow wait for this after their first part."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def door(self, product: str = "slack_app") -> Door:
        return Door(self.url, product)

    @property
    def targets(self) -> list[bytes]:
        return [target for _, target, _, _ in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        try:
            await self._serve(reader, writer)
        except (OSError, h11.RemoteProtocolError, h11.LocalProtocolError):
            pass
        finally:
            self.connections -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state = h11.Connection(h11.SERVER)
        request, body = None, b""
        while True:
            event = state.next_event()
            if event is h11.NEED_DATA:
                state.receive_data(await reader.read(65_536))
            elif isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                target = bytes(request.target)
                headers = {bytes(name): bytes(value) for name, value in request.headers}
                self.requests.append((bytes(request.method), target, headers, body))
                await self._answer(reader, writer, state, target)
                if state.our_state is not h11.DONE:
                    return
                state.start_next_cycle()
            else:
                return

    async def _answer(
        self, reader: asyncio.StreamReader, writer, state: h11.Connection, target: bytes
    ) -> None:
        headers = [("content-type", "text/plain"), ("keep-alive", "timeout=5"), ("x-gateway", "1")]
        writer.write(state.send(h11.Response(status_code=200, headers=headers)))
        writer.write(state.send(h11.Data(data=b"first ")))
        await writer.drain()
        if target.endswith(b"/slow"):
            await _first(self.answering.wait(), reader.read(1))
        writer.write(state.send(h11.Data(data=b"last")))
        writer.write(state.send(h11.EndOfMessage()))
        await writer.drain()


async def _first(*waiting) -> None:
    """Wait for the first of these, and cancel the others."""
    tasks = [asyncio.ensure_future(one) for one in waiting]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


@asynccontextmanager
async def running_gateway() -> AsyncIterator[FakeGateway]:
    """Run a gateway on the host until the block ends."""
    gateway = FakeGateway()
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    gateway.port = server.sockets[0].getsockname()[1]
    try:
        yield gateway
    finally:
        server.close()


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    async with running_gateway() as running:
        yield running


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition is true, without blocking the event loop."""
    try:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"{what} did not happen within 60 s")


def _descriptors() -> set[str]:
    """Return this process's descriptors, except for the fork server's, which is kept."""
    control = SERVER._control
    kept = set() if control is None else {str(control.fileno())}
    return set(os.listdir("/proc/self/fd")) - kept


@pytest.fixture(autouse=True)
def _no_descriptor_left() -> Iterator[None]:
    """Fail if a test leaves descriptors of this process open."""
    before = _descriptors()
    yield
    after = _descriptors()
    assert len(after) <= len(before), sorted(after - before)
