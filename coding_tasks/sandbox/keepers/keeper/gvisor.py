"""Starts gVisor's runsc, and reports its end as bubblewrap does.

runsc starts more processes: its own kernel, which runs the command, one that opens files for it,
and those that hold the command's memory. They are all in one process namespace, so the host's
kernel ends them together.
"""

import json
import os
import resource
import shutil
import signal
import socket
from typing import Any

from coding_tasks.sandbox.keepers.keeper import child, kernel, layout, mounts
from coding_tasks.sandbox.keepers.keeper.messages import Start

_SIZE = 32_000_000
"""Bytes of runsc's own files. The largest holds the command's arguments and environment."""
_NOT_STARTED = ("creating container", "starting container")
"""What runsc's log names as its last step if the command was never started."""
_BY_SIGNAL = 128


def execute(
    order: Start, descriptors: child.Descriptors, report: int, channel: socket.socket
) -> None:
    """Run runsc in namespaces of its own until it ends, then exit. Raises OSError."""
    bundle = json.loads(child.read(descriptors.arguments))
    mounts.new_user_namespace(root=True)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID)
    if order.network:
        child.open_door(order, channel)
    else:
        kernel.unshare(kernel.CLONE_NEWNET)
    child.yield_to_the_worker()
    _write(bundle, descriptors.extra)
    first = os.fork()
    if first == 0:
        _become_runsc(order, descriptors)
    child.keep_only(report)  # now number 0, where the standard input was
    os.write(0, json.dumps({"child-pid": first}).encode() + b"\n")
    status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    if _has_started():
        os.write(0, json.dumps({"exit-code": status}).encode() + b"\n")
    os._exit(status if status >= 0 else _BY_SIGNAL - status)


def _become_runsc(order: Start, descriptors: child.Descriptors) -> None:
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.unshare(kernel.CLONE_NEWNS)  # the parent keeps its own /proc
        kernel.mount("proc", "/proc", "proc", kernel.HARMLESS | kernel.MS_NOEXEC)
        path, *arguments = child.read(descriptors.argv).split(b"\0")
        child.keep_only(descriptors.stdin, descriptors.stdout, descriptors.stderr)
        child.restore_signals()
        for which, limit in order.resources:
            resource.setrlimit(which, (limit, limit))
        os.execve(path, [path, *arguments], {})  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, str(error).encode())
    finally:
        os._exit(126)


def _write(bundle: dict[str, Any], extra: int | None) -> None:
    """Write what runsc reads: the specification, the links of the root, and the scratch folder."""
    kernel.mount("tmpfs", layout.RUN, "tmpfs", kernel.HARMLESS, f"size={_SIZE},mode=700")
    os.mkdir(layout.RUN_ROOT)
    for path, leads_to in bundle["links"]:
        os.makedirs(os.path.dirname(layout.RUN_ROOT + path), exist_ok=True)
        os.symlink(leads_to, layout.RUN_ROOT + path)
    if bundle["scratch"]:
        size, file = bundle["scratch"]
        os.mkdir(layout.RUN_SCRATCH)
        options = f"size={size},mode=700"
        kernel.mount("tmpfs", layout.RUN_SCRATCH, "tmpfs", kernel.HARMLESS, options)
        if file and extra is not None:
            with (
                open(extra, "rb", closefd=False) as given,
                open(f"{layout.RUN_SCRATCH}/{file}", "wb") as copy,
            ):
                shutil.copyfileobj(given, copy)
    with open(f"{layout.RUN}/config.json", "w") as configuration:
        json.dump(bundle["specification"], configuration)


def _has_started() -> bool:
    try:
        with open(layout.RUN_LOG) as log:
            said = log.read()
    except FileNotFoundError:
        return False
    return not any(step in said for step in _NOT_STARTED)
