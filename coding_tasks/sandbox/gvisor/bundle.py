"""What gVisor's runsc is given: flags, and a bundle as the Open Container Initiative defines it."""

import json
from pathlib import Path
from typing import Any

from coding_tasks.sandbox import launcher_input, seccomp
from coding_tasks.sandbox.command import PYTHON_INSIDE, Command
from coding_tasks.sandbox.interface import Limits
from coding_tasks.sandbox.keepers.keeper import layout
from coding_tasks.sandbox.keepers.view import UID_INSIDE, Bind, Link, Mount, Scratch, View

FLAGS = (
    f"--root={layout.RUN}/state",
    f"--log={layout.RUN_LOG}",
    "--rootless",
    "--ignore-cgroups",
    "--overlay2=none",
)
"""Without an overlay, files are written where the keeper bounds them, not in runsc's memory."""
NO_NETWORK = "--network=none"
HOST_NETWORK = "--network=host"
"""What runsc takes for the host's network is the keeper's, which has a door and nothing else."""


def flags(*, network: bool) -> list[str]:
    """Return runsc's arguments. They hold no secrets."""
    chosen = HOST_NETWORK if network else NO_NETWORK
    return [*FLAGS, chosen, "run", f"--bundle={layout.RUN}", "command"]


def write(limits: Limits, view: View) -> bytes:
    """Return what the keeper needs to make the bundle, as JSON."""
    links = [(mount.path, mount.leads_to) for mount in view.mounts if isinstance(mount, Link)]
    scratch = [(mount.size, mount.file) for mount in view.mounts if isinstance(mount, Scratch)]
    bundle = {
        "specification": _specification(limits, view),
        "links": links,
        "scratch": scratch[0] if scratch else None,
    }
    return json.dumps(bundle).encode()


def given(command: Command) -> bytes:
    """Return the standard input of the launcher. It holds secrets.

    The only user of the host that runsc has is root inside, and files belong to it. So the launcher
    gets a uid to become.
    """
    return launcher_input.encode(command.argv, command.environment, seccomp.build(), uid=UID_INSIDE)


def _specification(limits: Limits, view: View) -> dict[str, Any]:
    kinds = ("bounding", "effective", "inheritable", "permitted", "ambient")
    none: dict[str, list[str]] = {kind: [] for kind in kinds}
    return {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": [PYTHON_INSIDE, "-I", "-S", "-c", launcher_input.PROGRAM],
            "env": [],
            "cwd": view.folder,
            "noNewPrivileges": True,
            "capabilities": none,
            "rlimits": _resources(limits),
        },
        "root": {"path": Path(layout.RUN_ROOT).name, "readonly": True},
        "hostname": "sandbox",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            *(mount for shown in view.mounts for mount in _mounts(shown)),
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
    }


def _mounts(mount: Mount) -> list[dict[str, Any]]:
    match mount:
        case Bind(source, target, writable):
            options = ["rbind", "rw" if writable else "ro"]
            return [{"destination": target, "type": "bind", "source": source, "options": options}]
        case Scratch(path):
            return _mounts(Bind(layout.RUN_SCRATCH, path, writable=True))
        case Link():  # the keeper makes them in the root
            return []


def _resources(limits: Limits) -> list[dict[str, Any]]:
    values = {
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.file_size,
        "RLIMIT_CPU": int(limits.cpu_seconds) + 1,
        "RLIMIT_CORE": 0,
    }
    return [{"type": name, "hard": value, "soft": value} for name, value in values.items()]
