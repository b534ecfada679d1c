"""Run a module in the checkout's virtual environment, creating the environment if needed.

    python3 devstack/launch.py MODULE [ARGUMENT…]

This file uses the standard library only, and no syntax newer than Python 3.8. It has to run, and to
say what to do, on an old Python, on Debian without `python3-venv`, and without a network.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / os.environ.get("TOLLGATE_VENV", ".venv")
PYTHON = ENVIRONMENT / "bin" / "python"
LOCK = ROOT / "requirements.lock"
STAMP = ENVIRONMENT / "tollgate.stamp"
NEEDS = (3, 11)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
NEEDED_BYTES = 2 * 10**9
"""The environment has one gigabyte, and the stack's data needs some."""
VERSION = sys.version.partition(" ")[0]
BAR = 40  # characters
LINE_EVERY = 5.0  # seconds
_NO_NETWORK = re.compile(
    r"name resolution|failed to establish a new connection|dns error|network is unreachable|"
    r"error sending request|could not resolve|no route to host|connection refused|"
    r"timed out|connecterror|tunnel|no matching distribution",
    re.IGNORECASE,
)


class LaunchError(Exception):
    """Why the module cannot be run, in one sentence that says what to do."""


def main(arguments: list[str]) -> None:
    """Update the environment if it differs from the lock file, then become the module."""
    try:
        use_new_enough_python()
        prepare(starts_the_stack=arguments[0] == "devstack")
    except LaunchError as error:
        sys.exit(f"tollgate: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    os.chdir(ROOT)
    spare_loopback()
    # Without bytecode, each of a stack's or suite's many processes compiles every module again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["VIRTUAL_ENV"] = str(ENVIRONMENT)
    os.environ["PATH"] = f"{PYTHON.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.execv(PYTHON, [str(PYTHON), "-m", *arguments])


def spare_loopback() -> None:
    """Exempt this machine's addresses from the proxy in the environment, if there is one."""
    exempt = [os.environ[name] for name in ("no_proxy", "NO_PROXY") if os.environ.get(name)]
    names = ",".join([*exempt[:1], *LOOPBACK])
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = names


def use_new_enough_python() -> None:
    """Restart in a newer Python of this machine if this one is too old."""
    if sys.version_info >= NEEDS:
        return
    for minor in range(20, NEEDS[1] - 1, -1):
        newer = shutil.which(f"python3.{minor}")
        if newer and _version_of(newer):
            os.execv(newer, [newer, *sys.argv])
    raise LaunchError(
        f"Python {NEEDS[0]}.{NEEDS[1]} or newer is needed, and {sys.executable} is {VERSION}."
        " Install one, or name one: make up PYTHON=/path/to/python3.12"
    )


def prepare(starts_the_stack: bool = False) -> None:
    """Create the environment and install the locked packages, unless that was done already.

    This checks the machine first, because the installation takes a minute.
    """
    stamp = f"{hashlib.sha256(LOCK.read_bytes()).hexdigest()} {VERSION}"
    if _is_stamped(stamp):
        return
    with LOCK.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two `make` at once, the second waits
        if _is_stamped(stamp):
            return
        check_machine(starts_the_stack)
        uv = shutil.which("uv")
        if _version_of(PYTHON) != VERSION:
            _make_environment(uv)
        install(LOCK, uv)
        STAMP.write_text(stamp)


def check_machine(starts_the_stack: bool) -> None:
    """Raise `LaunchError` if git, disk space or, to start the stack, a port is missing."""
    if shutil.which("git") is None:
        raise LaunchError("git is missing. On Debian or Ubuntu: sudo apt install git")
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_BYTES:
        raise LaunchError(
            f"{NEEDED_BYTES // 10**9} GB of disk space are needed in {ROOT}, and"
            f" {free / 10**9:.1f} GB are free."
        )
    if starts_the_stack:
        # These modules need nothing that is still to be installed.
        sys.path.insert(0, str(ROOT))
        from devstack import settings

        try:
            settings.refuse_taken_ports(settings.read(os.environ))
        except settings.SettingsError as error:
            raise LaunchError(str(error)) from None


def _is_stamped(stamp: str) -> bool:
    return STAMP.is_file() and STAMP.read_text() == stamp


def _version_of(python: str | Path) -> str:
    """Return the version of an interpreter, or "" if it does not run."""
    try:
        asked = subprocess.run(
            [str(python), "-c", "import platform; print(platform.python_version())"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""


def _make_environment(uv: str | None) -> None:
    # If this Python is the environment's own, use the Python that the environment was made from.
    python = getattr(sys, "_base_executable", None) or sys.executable
    if uv:
        command = [uv, "venv", "--quiet", "--clear", "--python", python, str(ENVIRONMENT)]
    elif importlib.util.find_spec("ensurepip") is None:
        raise LaunchError(
            f"{python} cannot make environments. On Debian or Ubuntu:"
            f" sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        )
    else:
        command = [python, "-m", "venv", "--clear", str(ENVIRONMENT)]
    made = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if made.returncode:
        sys.stderr.write(made.stdout)
        raise LaunchError(f"{ENVIRONMENT} could not be made; the lines above say why.")


def install(lock: Path, uv: str | None, target: Path | None = None) -> None:
    """Install the packages of a lock file into the environment, or into the folder `target`.

    Other packages stay there.
    """
    packages = sum(1 for line in lock.read_text().splitlines() if re.match(r"[a-z0-9]", line))
    where = f"{(target or ENVIRONMENT).name}/ (the first time, about a minute)"
    _say(f"installing {packages} locked packages into {where}")
    if uv:
        command = [uv, "pip", "install", "--python", str(PYTHON), "--compile-bytecode"]
    else:
        command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
        command += ["--no-input", "--progress-bar", "off"]
    command += ["--require-hashes", "-r", str(lock)]
    if target:
        command += ["--target", str(target)]
    began = time.monotonic()
    status, output = _run(command, os.environ, packages)
    if status and uv and "certificate" in output:
        # Unlike pip, uv does not trust the system's certificates, such as a company proxy's.
        status, output = _run(command, {**os.environ, "UV_SYSTEM_CERTS": "true"}, packages)
    if status:
        sys.stderr.writelines(output.splitlines(keepends=True)[-15:])
        if _NO_NETWORK.search(output):
            raise LaunchError(
                "the packages could not be fetched: no network, or no package index behind it."
                " Connect (or set PIP_INDEX_URL or UV_INDEX_URL) and run the same command again."
            )
        raise LaunchError("the packages could not be installed; the lines above say why.")
    _say(f"installed in {time.monotonic() - began:.0f} s")


def _run(command: list[str], environment: Mapping[str, str], packages: int) -> tuple[int, str]:
    """Run an installer and show its progress. Return its exit status and its output."""
    progress = Progress(packages)
    output = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as installing:
        assert installing.stdout is not None
        for line in installing.stdout:
            output.append(line)
            progress.see(line)
    progress.end()
    return installing.returncode, "".join(output)


class Progress:
    """Shows how many packages pip has fetched: as a bar on a terminal, else as a line now and then.

    uv prints nothing while it works, and takes seconds.
    """

    def __init__(self, packages: int) -> None:
        self._packages = packages
        self._fetched = 0
        self._said = time.monotonic()
        self._moves = sys.stderr.isatty()
        self._shown = False

    def see(self, line: str) -> None:
        """Take one line of the installer's output."""
        if line.startswith("Installing collected packages"):
            self._show("unpacking them")
        elif line.startswith("Collecting "):
            self._fetched = min(self._fetched + 1, self._packages)
            if self._moves or time.monotonic() - self._said > LINE_EVERY:
                self._show(f"fetched {self._fetched} of {self._packages}")

    def end(self) -> None:
        """Leave the bar's line."""
        if self._shown and self._moves:
            sys.stderr.write("\n")

    def _show(self, text: str) -> None:
        self._said = time.monotonic()
        self._shown = True
        if not self._moves:
            _say(f"  {text}")
            return
        filled = BAR * self._fetched // max(self._packages, 1)
        sys.stderr.write(f"\rtollgate: [{'█' * filled}{'·' * (BAR - filled)}] {text:<24}")
        sys.stderr.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"tollgate: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
