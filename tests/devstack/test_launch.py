"""The launcher creates the environment once, and says in one line what is missing."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

from devstack import launch
from tests.devstack.processes import listening
from tests.soak import __main__ as soak

ROOT = Path(__file__).resolve().parents[2]


def test_an_old_python_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.sys, "version_info", (3, 9, 2))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(launch.LaunchError, match=r"^Python 3\.11 or newer is needed, and .* is "):
        launch.use_new_enough_python()


def test_a_newer_python_on_the_machine_replaces_an_old_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    newer = tmp_path / "python3.13"
    newer.write_text("#!/bin/sh\necho 3.13.1\n")
    newer.chmod(0o755)
    broken = tmp_path / "python3.14"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    became = []
    monkeypatch.setattr(launch.sys, "version_info", (3, 9, 2))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(launch.os, "execv", lambda program, argv: became.append(argv))
    with pytest.raises(launch.LaunchError):
        launch.use_new_enough_python()
    assert became == [[str(newer), *sys.argv]]


def test_debian_without_venv_is_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(launch.LaunchError, match=r"sudo apt install python3\.\d+-venv$"):
        launch._make_environment(uv=None)


def test_every_module_behind_make_can_be_launched() -> None:
    targets = (ROOT / "Makefile").read_text()
    modules = ("devstack", "devstack.demo", "pytest", "devstack.lint", "benchmarks", "tests.soak")
    for module in modules:
        assert f"$(LAUNCH) {module}" in targets


def test_every_file_of_the_soak_exists() -> None:
    assert all((ROOT / path).exists() for path in soak.PROPERTIES + soak.FAILURES)
    tests = (ROOT / "tests").rglob("test_*.py")
    random = [path for path in tests if re.search(r"^\s*@given\(", path.read_text(), re.MULTILINE)]
    assert {str(path.relative_to(ROOT)) for path in random} <= set(soak.PROPERTIES)
    commands = [step.command(1) for step in soak.STEPS]
    modules = {command[2] for command in commands} - {"pytest"}
    assert all((ROOT / f"{module.replace('.', '/')}.py").exists() for module in modules)


def test_a_soak_of_zero_minutes_ends_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(0) == 0
    assert capsys.readouterr().out.strip() == "0 steps, 0 failed"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the launcher, a lock file of one package, and no network."""
    (tmp_path / "devstack").mkdir()
    shutil.copy(ROOT / "devstack" / "launch.py", tmp_path / "devstack")
    shutil.copy(ROOT / "Makefile", tmp_path)
    wheel = tmp_path / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "tiny.py", "import sys; print('tiny ran', sys.argv[1:], sys.dont_write_bytecode)"
        )
        archive.writestr(
            "tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n"
        )
        archive.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny-1.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"tiny @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    return tmp_path


def run(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Without uv, which a newcomer does not have; pip asks an index that is not there, once.
    clean = {"PATH": "/usr/bin:/bin", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
    return subprocess.run(
        [sys.executable, "devstack/launch.py", *arguments],
        cwd=checkout,
        env={**clean, "HOME": str(checkout), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


@pytest.mark.slow
def test_a_fresh_checkout_installs_once_and_then_starts_at_once(checkout: Path) -> None:
    first = run(checkout, "tiny", "a", "b")
    assert first.stdout == "tiny ran ['a', 'b'] False\n", first.stderr
    assert "installing 1 locked packages into .venv/" in first.stderr
    assert "installed in" in first.stderr
    again = run(checkout, "tiny", PYTHONDONTWRITEBYTECODE="1")
    assert (again.stdout, again.stderr) == ("tiny ran [] False\n", "")

    lock = checkout / "requirements.lock"
    lock.write_text("absent==1 --hash=sha256:" + "0" * 64 + "\n")
    failed = run(checkout, "tiny")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(
        "tollgate: the packages could not be fetched: no network, or no package index behind it."
    )
    assert failed.stdout == ""


def test_a_machine_without_git_is_told_before_the_installation(checkout: Path) -> None:
    (checkout / "bin").mkdir()
    failed = run(checkout, "tiny", PATH=str(checkout / "bin"))
    assert failed.stderr == "tollgate: git is missing. On Debian or Ubuntu: sudo apt install git\n"
    assert not (checkout / ".venv").exists()


def test_a_full_disk_is_named_before_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "NEEDED_BYTES", 10**18)
    with pytest.raises(launch.LaunchError, match=r"^1000000000 GB of disk space are needed in "):
        launch.check_machine(starts_the_stack=False)


def test_a_taken_port_is_named_before_the_installation(checkout: Path) -> None:
    for module in ("__init__", "settings", "env_file", "private_file", "servers"):
        shutil.copy(ROOT / "devstack" / f"{module}.py", checkout / "devstack")
    with listening() as port:
        failed = run(checkout, "devstack", WEB_PORT=str(port))
    assert failed.stderr.startswith(f"tollgate: port {port} is taken.")
    assert not (checkout / ".venv").exists()


def test_the_installation_shows_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    script = "print('Collecting a'); print('Collecting b'); print('Installing collected packages')"
    launch._run([sys.executable, "-c", script], os.environ, 2)
    assert capsys.readouterr().err == "tollgate:   unpacking them\n"


def test_the_installations_bar_moves_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = launch.Progress(4)
    for name in "abc":
        progress.see(f"Collecting {name}")
    shown = capsys.readouterr().err.split("\r")
    assert [line.count("█") for line in shown] == [0, 10, 20, 30]


def test_uv_behind_a_company_proxy_uses_the_systems_certificates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uv = tmp_path / "uv"
    uv.write_text(
        '#!/bin/sh\n[ -n "$UV_SYSTEM_CERTS" ] && exit 0\n'
        "echo 'cause: invalid peer certificate: UnknownIssuer'; exit 2\n"
    )
    uv.chmod(0o755)
    monkeypatch.delenv("UV_SYSTEM_CERTS", raising=False)
    launch.install(launch.LOCK, str(uv))
    assert "installed in" in capsys.readouterr().err


def test_a_proxy_is_not_asked_for_addresses_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "intranet.example")
    monkeypatch.setenv("NO_PROXY", "")
    launch.spare_loopback()
    for name in ("no_proxy", "NO_PROXY"):
        assert os.environ[name] == "intranet.example,localhost,127.0.0.1,::1"
    assert urllib.request.proxy_bypass_environment("127.0.0.1:8000")


def test_make_without_a_python_says_so() -> None:
    made = subprocess.run(
        ["make", "up", "PYTHON=python-that-is-not-there"],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode != 0
    assert made.stderr.splitlines()[0] == (
        "tollgate: python-that-is-not-there is missing. Install Python 3.11 or newer, or name one:"
        " make up PYTHON=/path/to/python3.12"
    )


def test_make_with_a_python_that_cannot_read_the_launcher_says_so(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    made = subprocess.run(
        ["make", "up", f"PYTHON={old}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 2
    assert made.stderr.startswith(f"tollgate: {old} is too old or does not run.")
