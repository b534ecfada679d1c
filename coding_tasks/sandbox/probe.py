"""Whether a sandbox works: a command in it tries to reach the host. The answer is remembered."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from coding_tasks.sandbox.command import GATEWAY_PORT_INSIDE, PYTHON_INSIDE, Command
from coding_tasks.sandbox.errors import SandboxError, SandboxMissing
from coding_tasks.sandbox.host import owner_of_trees
from coding_tasks.sandbox.interface import Door, Limits, Workspace

_ESCAPE = """
import socket, sys
open("/work/written", "w").close()
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2)
except OSError:
    print("isolated")
"""
_KNOCK = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5) as door:
    door.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(door.recv(12).decode())
"""
"""The door itself refuses this path, so no gateway has to run."""
_NOBODY = Door("http://127.0.0.1:9", "probe")
_LIMITS = Limits(seconds=30)
ASK_AGAIN_AFTER = 60.0
"""Seconds until a sandbox that did not work is tried again."""


class Probe:
    """Asks whether a sandbox works, and remembers success. Threads may share it.

    `needs` is what the machine must permit. It is added to reasons that operators may not
    understand without it.
    """

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, str | None]], needs: str) -> None:
        self._ask = ask
        self._needs = needs
        self._asking = threading.Lock()
        self._reason: str | None = "not tried yet"
        self.ask_again_at = 0.0

    def why_missing(self) -> str | None:
        """See `Sandbox.why_missing`."""
        with self._asking:
            if self._reason is not None and time.monotonic() >= self.ask_again_at:
                self._reason = self._in_a_thread()
                self.ask_again_at = time.monotonic() + ASK_AGAIN_AFTER
            return self._reason

    def _in_a_thread(self) -> str | None:
        """Return the answer. The caller may be in an event loop, so it gets one of its own."""
        reasons: list[str | None] = []

        def work() -> None:
            try:
                reasons.append(asyncio.run(self._ask()))
            except SandboxMissing as error:
                reasons.append(str(error))
            except (SandboxError, OSError) as error:
                reasons.append(f"{error} ({self._needs})")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return reasons[0] if reasons else "the probe failed"


class ProbedSandbox:
    """What the kinds of `Sandbox` share: whose trees they take, and whether they work here.

    `unprivileged` is the uid and the gid of what runs inside if this process is root. Otherwise it
    runs as the user of this process. `ask` and `needs` are those of `Probe`.
    """

    def __init__(
        self, unprivileged: int, ask: Callable[[], Coroutine[Any, Any, str | None]], needs: str
    ) -> None:
        self._unprivileged = unprivileged
        self._probe = Probe(ask, needs)

    @property
    def owner(self) -> tuple[int, int]:
        """See `Sandbox.owner`."""
        return owner_of_trees(self._unprivileged)

    def why_missing(self) -> str | None:
        """See `Sandbox.why_missing`."""
        return self._probe.why_missing()


async def try_out(opening: AbstractAsyncContextManager[Workspace]) -> str | None:
    """Try to reach a port of the host from inside, then the door.

    Return what is wrong. Raises `SandboxError`.
    """
    async with opening as workspace:
        with socket.create_server(("127.0.0.1", 0)) as host:
            said = await _run(workspace, _ESCAPE, host.getsockname()[1], None)
        if said != ["isolated"]:
            return f"a command in the sandbox was not isolated, or failed: {_short(said)}"
        said = await _run(workspace, _KNOCK, GATEWAY_PORT_INSIDE, _NOBODY)
        return None if said == ["HTTP/1.1 403"] else f"the door does not answer: {_short(said)}"


async def _run(workspace: Workspace, program: str, port: int, door: Door | None) -> list[str]:
    command = Command((PYTHON_INSIDE, "-I", "-S", "-c", program, str(port)), {})
    async with workspace.start(command, _LIMITS, door) as process:
        return [line.text async for line in process.lines()]


def _short(lines: list[str]) -> str:
    return repr(" ".join(lines)[-500:])
