"""The arguments of `docker run`: what a container may do and see. They hold no secrets."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coding_tasks.sandbox import export
from coding_tasks.sandbox.command import HOME_INSIDE, PYTHON_INSIDE, TREE_INSIDE
from coding_tasks.sandbox.interface import Limits, Storage
from coding_tasks.sandbox.workspace import Purpose

LABEL = "tollgate.workspace"
CHECKOUT_INSIDE = "/checkout"
DOOR_INSIDE = "/run/tollgate-door"
_OWN_PROCESSES = 8
"""Processes and threads of the launcher that count as the command's."""
_LATE = 20
"""Seconds beyond the limit on processor time after which the kernel ends a single process.

The engine can be late to report what all of them used.
"""
_LOW_PRIORITY = "512"
"""Half the share of processor time that other containers get."""
_SEALED = (
    "--interactive",
    "--rm",
    *("--pull", "never"),  # the operator decides which image is on the machine
    *("--network", "none"),
    "--read-only",
    *("--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges"),  # and the engine's own filter for system calls
    *("--log-driver", "none"),
    *("--hostname", "sandbox"),
    *("--oom-score-adj", "1000"),
    *("--cpu-shares", _LOW_PRIORITY),
)
TEMPORARY, SHARED_MEMORY = "/tmp", "/dev/shm"  # noqa: S108 - inside


@dataclass(frozen=True)
class Setup:
    """What all containers of a workspace have in common."""

    image: str
    runtime: str
    """An OCI runtime that the engine knows, or "" for its default."""
    name: str
    owner: tuple[int, int]
    storage: Storage
    folder: Path
    """A folder on the host with files for the containers."""
    mounts: Mapping[str, Path]
    tree: Path | None
    repository: Path | None

    @property
    def user(self) -> str:
        """Return the user of commands."""
        return "{}:{}".format(*self.owner)


def holder(setup: Setup, tree_bytes: int, tree_files: int) -> list[str]:
    """Return arguments for the container that holds a workspace's volumes and processes.

    It ends when its standard input closes, so it never outlives the worker. It runs as another user
    than the commands, which therefore cannot end it.
    """
    storage = setup.storage
    shared = storage.temporary_bytes // 4, storage.temporary_files // 4
    rest = storage.temporary_bytes - shared[0], storage.temporary_files - shared[1]
    volumes = {
        TREE_INSIDE: (tree_bytes, tree_files),
        HOME_INSIDE: (storage.home_bytes, storage.home_files),
        TEMPORARY: rest,
        SHARED_MEMORY: shared,
    }
    return [
        *_begin(setup, setup.name),
        *("--init", "--user", "0:0", "--ipc", "private", "--pids-limit", "16"),
        *("--memory", "64m", "--memory-swap", "64m"),
        *(part for path, size in volumes.items() for part in _volume(setup, path, *size)),
        *(setup.image, "/bin/sh", "-c", "echo ready; exec cat >/dev/null"),
    ]


def memory_events(setup: Setup, since: int, until: int) -> list[str]:
    """Return arguments that print the names of containers that run out of memory.

    Times are seconds since 1970. The program ends at `until`, even if the worker was killed.
    """
    ours = ("--filter", f"label={LABEL}={setup.name}", "--filter", "event=oom")
    times = ("--since", str(since), "--until", str(until))
    return ["events", *times, *ours, "--format", '{{index .Actor.Attributes "name"}}']


def leftovers() -> list[str]:
    """Return arguments that list the volumes of killed workers. Nothing is left in them."""
    return ["volume", "ls", "--quiet", "--filter", f"label={LABEL}", "--filter", "dangling=true"]


def fill(setup: Setup, volumes: Mapping[str, str]) -> list[str]:
    """Return arguments for the container that copies the checkout into the tree."""
    return [
        *_begin(setup, f"{setup.name}-tree"),
        *("--user", setup.user, "--pid", f"container:{setup.name}"),
        *_mount(type="volume", src=volumes[TREE_INSIDE], dst=TREE_INSIDE),
        *_mount(type="bind", src=str(setup.tree), dst=CHECKOUT_INSIDE, readonly=True),
        *(setup.image, "cp", "-a", f"{CHECKOUT_INSIDE}/.", TREE_INSIDE),
    ]


def command(
    setup: Setup,
    name: str,
    purpose: Purpose,
    limits: Limits,
    volumes: Mapping[str, str],
    program: str,
    *,
    door: bool,
) -> list[str]:
    """Return arguments for the container of one command. `program` is the launcher's source."""
    folder = "/" if purpose in (Purpose.SAVE, Purpose.RESTORE) else TREE_INSIDE
    return [
        *_begin(setup, name),
        *("--user", setup.user, "--pid", f"container:{setup.name}", "--workdir", folder),
        *("--memory", str(limits.memory), "--memory-swap", str(limits.memory)),
        *("--pids-limit", str(limits.processes + _OWN_PROCESSES)),
        *("--ulimit", f"nofile={limits.open_files}", "--ulimit", f"fsize={limits.file_size}"),
        *("--ulimit", f"cpu={int(limits.cpu_seconds) + _LATE}", "--ulimit", "core=0"),
        *_shown(setup, purpose, volumes),
        *(_read_only(setup.folder / "passwd", "/etc/passwd")),
        *(_read_only(setup.folder / "group", "/etc/group")),
        *(_read_only(setup.folder / f"{name}.door", DOOR_INSIDE) if door else ()),
        *(setup.image, PYTHON_INSIDE, "-I", "-S", "-c", program),
    ]


def _begin(setup: Setup, name: str) -> list[str]:
    runtime = ("--runtime", setup.runtime) if setup.runtime else ()
    return ["run", *_SEALED, *runtime, "--name", name, "--label", f"{LABEL}={setup.name}"]


def _shown(setup: Setup, purpose: Purpose, volumes: Mapping[str, str]) -> list[str]:
    match purpose:
        case Purpose.TASK:
            shown = [_mount(type="volume", src=volumes[path], dst=path) for path in volumes]
            shown += [_read_only(path, inside) for inside, path in setup.mounts.items()]
        case Purpose.EXPORT:
            uid, gid = setup.owner
            size = f"size={setup.storage.tree_bytes},mode=700,uid={uid},gid={gid}"
            shown = [
                _mount(type="volume", src=volumes[TREE_INSIDE], dst=TREE_INSIDE, readonly=True),
                _read_only(setup.repository or Path("/"), export.REPOSITORY_INSIDE),
                ["--tmpfs", f"{export.HOME_INSIDE}:{size}", "--ipc", "none"],
            ]
        case Purpose.SAVE | Purpose.RESTORE:
            readonly = purpose is Purpose.SAVE
            home = volumes[HOME_INSIDE]
            shown = [
                _mount(type="volume", src=home, dst=HOME_INSIDE, readonly=readonly),
                ["--ipc", "none"],
            ]
    return [part for mount in shown for part in mount]


def _volume(setup: Setup, path: str, size: int, files: int) -> list[str]:
    uid, gid = setup.owner
    options = f"size={size},nr_inodes={files},mode=700,uid={uid},gid={gid},nosuid,nodev"
    return _mount(
        "volume-opt=type=tmpfs",
        "volume-opt=device=tmpfs",
        f"volume-opt=o={options}",
        "volume-driver=local",
        f"volume-label={LABEL}",
        type="volume",
        dst=path,
    )


def _read_only(path: Path, inside: str) -> list[str]:
    return _mount(type="bind", src=str(path), dst=inside, readonly=True)


def _mount(*more: str, readonly: bool = False, **fields: str) -> list[str]:
    """Return a `--mount` option. Its value is a line of comma-separated values."""
    parts: Sequence[str] = [
        *(f"{name}={value}" for name, value in fields.items()),
        *more,
        *(["volume-nocopy"] if fields["type"] == "volume" else []),  # without files of the image
        *(["readonly"] if readonly else []),
    ]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(parts)
    return ["--mount", line.getvalue()]
