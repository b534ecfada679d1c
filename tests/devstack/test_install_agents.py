"""`make agents`: pinned, verified, replaced only by what works, and clear about what is missing."""

import json
import os
import re
import stat
from pathlib import Path

import pytest

from devstack import install_agents
from devstack.install_agents import AGENTS, MANIFESTS, MINI_LOCK

NPM = """#!/bin/sh
# A stand-in for npm: it "installs" a program for this machine.
[ "$1" = ci ] || exit 1
[ -z "$FAIL" ] || { echo "npm error: no network" >&2; exit 1; }
folder=node_modules/@anthropic-ai/claude-code-linux-x64
mkdir -p $folder
printf '#!/bin/sh\\n%s\\n' "${SAYS:-echo 2.1.332}" > $folder/claude
chmod 700 $folder/claude
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of agents, with a stand-in for npm on the path."""
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text(NPM)
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("AGENTS_DIR", str(tmp_path / "agents"))
    return tmp_path / "agents"


def test_an_agent_is_installed_at_a_fixed_place(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install_agents.main(["claude"]) == 0
    program = folder / "claude" / "bin" / "claude"
    assert stat.S_IMODE(program.stat().st_mode) & 0o055 == 0o055, "the sandbox's user can't run it"
    assert not os.path.isabs(os.readlink(program)), "it must work where a sandbox shows it"
    assert capsys.readouterr().out == "Claude Code: 2.1.332\n"
    assert sorted(path.name for path in folder.iterdir()) == ["claude"]


def test_what_is_installed_is_not_installed_again(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_agents.main(["claude"])
    monkeypatch.setenv("FAIL", "1")
    assert install_agents.main(["claude"]) == 0
    assert "(installed before)" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "value"), [("FAIL", "1"), ("SAYS", "exit 3")])
def test_what_works_is_replaced_only_by_what_works(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
) -> None:
    install_agents.main(["claude"])
    (folder / "claude" / install_agents.STAMP).write_text("of an older version")
    monkeypatch.setenv(name, value)
    assert install_agents.main(["claude"]) == 1
    assert "not installed." in capsys.readouterr().out
    assert (folder / "claude" / "bin" / "claude").exists()


def test_a_machine_without_npm_is_told_so(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert install_agents.main(["claude"]) == 1
    assert "npm is missing. Install Node.js" in capsys.readouterr().out


def test_an_unknown_agent_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install_agents.main(["claude", "cursor"]) == 2
    assert "there is no agent cursor; there are claude, codex, mini" in capsys.readouterr().out
    assert not folder.exists()


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_npm_packages_are_pinned_and_name_no_registry(name: str) -> None:
    manifest = json.loads((MANIFESTS / name / "package.json").read_text())
    [version] = manifest["dependencies"].values()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    lock = json.loads((MANIFESTS / name / "package-lock.json").read_text())
    packages = [package for place, package in lock["packages"].items() if place]
    assert len(packages) > 1
    assert all(package["integrity"].startswith("sha512-") for package in packages)
    assert "http" not in (MANIFESTS / name / "package-lock.json").read_text()
    assert all("resolved" not in package for package in packages)


def test_python_packages_are_pinned_and_name_no_index() -> None:
    text = MINI_LOCK.read_text()
    pins = re.findall(r"^([\w.-]+)==[\w.]+", text, re.MULTILINE)
    assert "mini-swe-agent" in pins
    assert text.count("--hash=sha256:") > len(pins)
    assert "://" not in text


def test_every_agent_says_its_version(tmp_path: Path) -> None:
    for name, agent in AGENTS.items():
        assert str(tmp_path / name) in " ".join(agent.version_command(tmp_path / name))
