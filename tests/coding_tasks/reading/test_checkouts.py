"""Temporary clones: what git may do, and what can be read."""

import os
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from coding_tasks.failures import (
    CheckoutFailed,
    RepositoryTooBig,
    RepositoryUnreachable,
    UnpackingFailed,
)
from coding_tasks.reading.checkouts import PREFIX, ClonedCheckout, Cloner
from coding_tasks.repositories.bounds import Bounds
from coding_tasks.repositories.git import Ended
from tests.devstack.processes import wait_until_gone
from tests.git_repositories import commit, make_repository, run_git
from tests.stopwatch import Stopwatch


@pytest.fixture
def checkouts(tmp_path: Path) -> Cloner:
    directory = tmp_path / "clones"
    directory.mkdir()
    return Cloner(directory=directory)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    directory = tmp_path / "origin"
    make_repository(directory, {"README.md": "# Shop\n", "src/app.py": "print()\n"})
    return directory


def test_a_checkout_has_the_files_and_is_gone_afterwards(checkouts, origin):
    with checkouts.checkout(f"file://{origin}") as checkout:
        assert checkout.files() == ["README.md", "src/app.py"]
        assert checkout.read("src/app.py", 100) == b"print()\n"
        assert checkout.read("src/app.py", 5) == b"print"
        assert len(list(checkouts.directory.iterdir())) == 1
    assert list(checkouts.directory.iterdir()) == []


def test_files_and_folders_whose_names_are_not_utf_8_are_left_out(tmp_path):
    root = os.fsencode(tmp_path)
    os.mkdir(os.path.join(root, b"d\xe9p\xf4t"))
    for name in (b"caf\xe9.txt", b"d\xe9p\xf4t/file", "über.txt".encode(), b".git"):
        with open(os.path.join(root, name), "w") as file:
            file.write("text")
    assert ClonedCheckout(tmp_path).files() == ["über.txt"]


def test_only_the_newest_commit_is_fetched(checkouts, origin):
    (origin / "README.md").write_text("# Newer\n")
    commit(origin)
    with checkouts.checkout(f"file://{origin}") as checkout:
        assert (checkout.root / ".git" / "shallow").exists()
        assert checkout.read("README.md", 100) == b"# Newer\n"


def test_an_empty_repository_has_no_files(checkouts, tmp_path):
    (tmp_path / "empty").mkdir()
    run_git(tmp_path / "empty", "init", "--quiet")
    with checkouts.checkout(f"file://{tmp_path / 'empty'}") as checkout:
        assert checkout.files() == []


@pytest.mark.parametrize(
    ("git", "failure", "permanent"),
    [
        ("kill -9 $$", UnpackingFailed, False),
        ("echo 'fatal: too many open files' >&2; exit 128", UnpackingFailed, False),
        ("echo 'fatal: Out of memory, malloc failed' >&2; exit 128", RepositoryTooBig, True),
        ("echo 'fatal: not a git repository' >&2; exit 128", UnpackingFailed, True),
    ],
)
def test_only_a_repository_without_a_commit_counts_as_empty(
    checkouts, origin, tmp_path, monkeypatch, git, failure, permanent
):
    real = shutil.which("git")
    failing = tmp_path / "git"
    failing.write_text(f'#!/bin/sh\ncase $* in *rev-parse*) {git};; esac\nexec {real} "$@"\n')
    failing.chmod(0o755)
    monkeypatch.setattr("coding_tasks.repositories.git._git", lambda: str(failing))
    with pytest.raises(failure) as refused, checkouts.checkout(f"file://{origin}"):
        pass
    assert refused.value.permanent == permanent


def test_a_link_out_of_the_repository_is_not_followed(checkouts, origin, tmp_path):
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "secret").write_text("hunter2")
    (origin / "link").symlink_to(tmp_path / "secret")
    (origin / "folder").symlink_to(tmp_path / "folder")
    commit(origin)
    with checkouts.checkout(f"file://{origin}") as checkout:
        assert not any(path.is_symlink() for path in checkout.root.rglob("*"))
        read = [checkout.read(path, 1000) for path in [*checkout.files(), "folder/secret"]]
    assert not any(b"hunter2" in (content or b"") for content in read)


def test_a_checkout_reads_regular_files_below_its_root_only(tmp_path):
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]")
    (tmp_path / "secret").write_text("hunter2")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    (root / "inside" / "file").write_text("fine")
    os.mkfifo(root / "fifo")
    checkout = ClonedCheckout(root)

    assert checkout.files() == ["inside/file"]
    assert checkout.read("inside/file", 10) == b"fine"
    for path in ("link", "folder/secret", "../secret", "inside/../../secret", str(root), "fifo"):
        assert checkout.read(path, 10) is None
    for path in ("inside", "nowhere", "", str(tmp_path / "secret"), "..", "nul\0"):
        assert checkout.read(path, 10) is None


def test_a_checkout_of_very_many_files_is_bounded(tmp_path):
    for number in range(5):
        (tmp_path / str(number)).touch()
    assert ClonedCheckout(tmp_path, most_files=3).files() == ["0", "1", "2"]


def test_git_runs_nothing_from_the_repository_or_our_configuration(
    checkouts, origin, tmp_path, monkeypatch
):
    (origin / ".gitattributes").write_text("* filter=f\n")
    commit(origin)
    hook = tmp_path / "home" / "hooks" / "post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    config = tmp_path / "home" / ".gitconfig"
    config.write_text(
        f"[core]\n hooksPath = {hook.parent}\n"
        f'[filter "f"]\n smudge = touch {tmp_path}/ran\n required = true\n'
    )
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(hook.parent))
    with checkouts.checkout(f"file://{origin}") as checkout:
        assert checkout.read("README.md", 10) == b"# Shop\n"
    assert not (tmp_path / "ran").exists()


def test_submodules_are_not_fetched(checkouts, origin, tmp_path):
    inner = make_repository(tmp_path / "inner", {"inner.txt": "inner"})
    run_git(origin, "-c", "protocol.file.allow=always", "submodule", "add", "--quiet", inner, "sub")
    commit(origin)
    with checkouts.checkout(f"file://{origin}") as checkout:
        assert "sub/inner.txt" not in checkout.files()


def test_git_sees_none_of_our_secrets(checkouts, tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    seen = tmp_path / "seen"
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nenv > {seen}\necho "$@" >> {seen}\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)
    with pytest.raises(CheckoutFailed), checkouts.checkout("https://example.com/acme/shop"):
        pass
    text = seen.read_text()
    assert "sk-secret" not in text
    assert "SECRET_KEY" not in text
    assert "GIT_ALLOW_PROTOCOL=https:ssh:file" in text
    assert "GIT_TERMINAL_PROMPT=0" in text
    assert " -- https://example.com/acme/shop " in text


@pytest.mark.parametrize("url", ["ext::touch /tmp/owned", "https://token@example.com/x"])
def test_a_refused_address_never_reaches_git(checkouts, url):
    with pytest.raises(CheckoutFailed) as refused, checkouts.checkout(url):
        pass
    assert refused.value.permanent
    assert list(checkouts.directory.iterdir()) == []


def test_a_repository_that_is_not_there_is_a_failure_for_good(checkouts, tmp_path):
    with pytest.raises(CheckoutFailed) as failed, checkouts.checkout(f"file://{tmp_path / 'gone'}"):
        pass
    assert failed.value.permanent
    assert "does not" in str(failed.value)


def test_a_host_that_does_not_answer_is_worth_another_attempt(checkouts):
    with (
        pytest.raises(CheckoutFailed) as failed,
        checkouts.checkout("https://127.0.0.1:1/acme/shop"),
    ):
        pass
    assert not failed.value.permanent


def test_a_repository_beyond_the_bound_is_refused(origin, checkouts):
    (origin / "big").write_bytes(os.urandom(200_000))
    commit(origin)
    small = replace(checkouts, bounds=Bounds(size=100_000))
    with pytest.raises(CheckoutFailed, match="too big"), small.checkout(f"file://{origin}"):
        pass
    assert list(checkouts.directory.iterdir()) == []


def test_a_small_repository_that_unpacks_beyond_the_bounds_is_refused_at_once(checkouts, tmp_path):
    origin = tmp_path / "bomb"
    make_repository(origin, {"file": "text"})
    kind, name = "blob", run_git(origin, "hash-object", "file")
    for _ in range(10):  # ten folders in each of ten folders in each of …
        entries = "".join(f"{_mode(kind)} {kind} {name}\t{n}\n" for n in range(10))
        kind, name = "tree", run_git(origin, "mktree", given=entries)
    run_git(origin, "reset", "--soft", run_git(origin, "commit-tree", "-m", "bomb", name))
    with (
        Stopwatch() as waited,
        pytest.raises(CheckoutFailed) as failed,
        replace(checkouts, most_memory=200_000_000).checkout(f"file://{origin}"),
    ):
        pass
    assert failed.value.permanent
    assert waited.seconds < 10


def _mode(kind: str) -> str:
    return "100644" if kind == "blob" else "040000"


def test_a_clone_that_hangs_is_ended_with_all_its_children(checkouts, tmp_path, monkeypatch):
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/pid\nwait\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)
    impatient = Cloner(timeout=timedelta(seconds=3), directory=checkouts.directory)
    with pytest.raises(RepositoryUnreachable, match="too long"), impatient.checkout("https://h/x"):
        pass
    child = int((tmp_path / "pid").read_text())
    wait_until_gone([child])


@pytest.mark.parametrize(
    ("status", "said", "failure"),
    [
        (128, "fatal: unable to access 'https://h/x/': Could not resolve host: h", "unreachable"),
        (128, "fatal: remote error: no space left on device", "unreachable"),
        (128, "remote: no space left on device\nfatal: early EOF", "unreachable"),
        (128, "fatal: write error: No space left on device", "ours"),
        (-9, "", "ours"),
    ],
)
def test_a_host_that_does_not_answer_is_not_a_failure_of_this_machine(status, said, failure):
    with pytest.raises(CheckoutFailed) as failed:
        Ended(status, said).require_reached()
    assert isinstance(failed.value, RepositoryUnreachable) == (failure == "unreachable")
    assert not failed.value.permanent


def test_a_machine_without_git_says_so(checkouts, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CheckoutFailed, match="not installed"), checkouts.checkout("https://h/x"):
        pass


def test_clones_that_a_killed_worker_left_are_removed_once_they_are_old(checkouts):
    old, young, foreign = (
        checkouts.directory / name for name in (f"{PREFIX}old", f"{PREFIX}young", "foreign")
    )
    for directory in (old, young, foreign):
        directory.mkdir()
        (directory / "file").touch()
    for directory in (old, foreign):
        os.utime(directory, (0, 0))
    (checkouts.directory / f"{PREFIX}file").touch()
    (checkouts.directory / f"{PREFIX}link").symlink_to(foreign)
    checkouts.remove_leftovers(older_than=timedelta(hours=1))
    assert not old.exists()
    assert (young / "file").exists()
    assert (foreign / "file").exists()


def test_a_leftover_that_cannot_be_removed_is_reported_once_and_tried_again(
    checkouts, monkeypatch, caplog
):
    def fails(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (checkouts.directory / f"{PREFIX}old").mkdir()
    os.utime(checkouts.directory / f"{PREFIX}old", (0, 0))
    with monkeypatch.context() as broken:
        broken.setattr("coding_tasks.reading.checkouts.remove_tree", fails)
        for _ in range(3):
            checkouts.remove_leftovers(older_than=timedelta(hours=1))
    assert caplog.text.count("a clone cannot be removed") == 1
    checkouts.remove_leftovers(older_than=timedelta(hours=1))
    assert list(checkouts.directory.iterdir()) == []
