"""Makes the namespaces and mounts of a workspace, and gives up every privilege on the way."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coding_tasks.sandbox.keepers.keeper import kernel, layout


@dataclass(frozen=True)
class Size:
    """The most that a file system may hold."""

    bytes: int
    files: int


@dataclass(frozen=True)
class Plan:
    """What a workspace is made of. Paths are the host's."""

    uid: int
    gid: int
    tree: str | None
    repository: str | None
    binds: Mapping[str, str]
    """What is bound below `layout.BINDS`: names there, and the host's paths."""
    tree_size: Size
    home_size: Size
    temporary_size: Size


def read_plan(fields: dict[str, Any]) -> Plan:
    """Return the plan from its JSON fields."""
    sizes = {name: Size(**fields[name]) for name in fields if name.endswith("_size")}
    return Plan(**(fields | sizes))


def enter(plan: Plan) -> None:
    """Leave the host's mounts and the worker's user. Child processes get new process ids.

    Folders of the host are bound before the user changes, because the sandbox's user cannot reach
    what lies below, say, root's home.
    """
    if os.geteuid() == 0 and _may_mount():
        _bind_host(plan)
        _become(plan.uid, plan.gid)
        new_user_namespace()
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID)
    else:
        if os.geteuid() == 0:
            _become(plan.uid, plan.gid)
        new_user_namespace()
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID)
        _bind_host(plan)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def mount_storage(plan: Plan) -> None:
    """Mount the tree, the home, temporary files and this process namespace's own /proc."""
    kernel.mount("proc", "/proc", "proc", kernel.HARMLESS | kernel.MS_NOEXEC)
    _sized(layout.TREE_LAYER, plan.tree_size)
    _sized(layout.HOME, plan.home_size)
    _sized(layout.TEMPORARY, plan.temporary_size)
    for folder in (layout.TREE, layout.TEMPORARY_FILES, layout.SHARED_MEMORY):
        os.mkdir(folder)
    if plan.tree is not None:
        upper, work = f"{layout.TREE_LAYER}/upper", f"{layout.TREE_LAYER}/work"
        os.mkdir(upper)
        os.mkdir(work)
        options = f"userxattr,lowerdir={layout.LOWER},upperdir={upper},workdir={work}"
        kernel.mount("overlay", layout.TREE, "overlay", kernel.HARMLESS, options)


def _may_mount() -> bool:
    """Enter a mount namespace. Return False if root lacks the capability, as in most containers."""
    try:
        kernel.unshare(kernel.CLONE_NEWNS)
    except PermissionError:
        return False
    return True


def _bind_host(plan: Plan) -> None:
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    wanted = {f"{layout.BINDS}/{name}": path for name, path in plan.binds.items()}
    if plan.tree is not None:
        wanted[layout.LOWER] = plan.tree
    if plan.repository is not None:
        wanted[layout.REPOSITORY] = plan.repository
    # Opened first, because the next mount may cover them.
    opened = {target: os.open(path, os.O_PATH) for target, path in wanted.items()}
    kernel.mount("tmpfs", layout.BASE, "tmpfs", kernel.HARMLESS, "size=1m,nr_inodes=1000,mode=755")
    os.mkdir(layout.BINDS)
    for target, source in opened.items():
        _like(target, source)
        kernel.mount(f"/proc/self/fd/{source}", target, None, kernel.MS_BIND | kernel.MS_REC)
        os.close(source)
    for folder in (layout.TREE_LAYER, layout.HOME, layout.TEMPORARY, layout.ETC, layout.RUN):
        os.mkdir(folder)
    for name, text in layout.ETC_FILES.items():
        with open(f"{layout.ETC}/{name}", "w") as file:
            file.write(text)


def _like(target: str, source: int) -> None:
    """Create a folder or a file for the source to be mounted on."""
    if stat.S_ISDIR(os.fstat(source).st_mode):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o644))


def _sized(target: str, size: Size) -> None:
    options = f"size={size.bytes},nr_inodes={size.files},mode=700"
    kernel.mount("tmpfs", target, "tmpfs", kernel.HARMLESS, options)


def _become(uid: int, gid: int) -> None:
    """Become another user for good. A process that is not dumpable could not map its own user."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)


def new_user_namespace(*, root: bool = False) -> None:
    """Enter a user namespace where this user has every capability, but only over what it makes.

    With `root`, this user is root there, so that programs that it starts keep the capabilities.
    """
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{0 if root else uid} {uid} 1"),
        ("gid_map", f"{0 if root else gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
