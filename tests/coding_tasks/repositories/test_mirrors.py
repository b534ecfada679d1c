"""Mirrors are fetched again, shared safely, and made again if they are damaged or too big."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from coding_tasks.failures import CheckoutFailed, RepositoryBusy, RepositoryTooBig
from coding_tasks.repositories.bounds import Bounds
from coding_tasks.repositories.changes import commit_change
from coding_tasks.repositories.file_locks import locked
from coding_tasks.repositories.mirrors import Base
from coding_tasks.repositories.remotes import Login, Remote
from tests.coding_tasks.repositories.conftest import BRANCH, new_file, request_of
from tests.git_repositories import commit, make_repository, run_git
from tests.git_server import TOKEN, USER, GitServer


def head(directory: Path, name: str = "HEAD") -> str:
    return run_git(directory, "rev-parse", name)


def mirror_of(mirrors, remote) -> Path:
    return mirrors.directory / "mirrors" / remote.folder / "repository"


def test_the_newest_commit_of_the_default_branch_is_the_base(mirrors, remote, upstream):
    assert mirrors.update(remote) == Base(head(upstream), "main")
    (upstream / "new").touch()
    commit(upstream)
    assert mirrors.update(remote) == Base(head(upstream), "main")


def test_a_mirror_is_fetched_again_and_not_cloned_again(mirrors, remote, upstream):
    mirrors.update(remote)
    born = mirror_of(mirrors, remote).stat().st_ino
    packs = mirror_of(mirrors, remote) / "objects" / "pack"
    before = set(packs.iterdir())
    (upstream / "new").touch()
    commit(upstream)
    mirrors.update(remote)
    assert mirror_of(mirrors, remote).stat().st_ino == born
    assert before < set(packs.iterdir())


def test_a_renamed_default_branch_is_followed(mirrors, remote, upstream):
    mirrors.update(remote)
    run_git(upstream, "branch", "-m", "main", "trunk")
    assert mirrors.update(remote) == Base(head(upstream), "trunk")


def test_a_head_that_names_no_branch_means_the_only_one(mirrors, remote, upstream):
    run_git(upstream, "branch", "-m", "main", "trunk")
    run_git(upstream, "symbolic-ref", "HEAD", "refs/heads/gone")
    assert mirrors.update(remote) == Base(head(upstream, "trunk"), "trunk")
    run_git(upstream, "branch", "other", "trunk")
    with pytest.raises(CheckoutFailed, match="no default branch") as failed:
        mirrors.update(remote)
    assert failed.value.permanent


def test_an_empty_repository_has_an_empty_base(mirrors, tmp_path):
    run_git(tmp_path, "init", "--quiet", "--bare", "empty.git")
    assert mirrors.update(Remote("1", f"file://{tmp_path}/empty.git")) == Base("", "")


def test_many_runs_at_once_use_one_mirror(mirrors, remote, upstream):
    with ThreadPoolExecutor(8) as pool:
        bases = set(pool.map(lambda _: mirrors.update(remote), range(8)))
    assert bases == {Base(head(upstream), "main")}
    folder = mirrors.directory / "mirrors"
    assert sorted(path.name for path in folder.iterdir()) == [
        remote.folder,
        f"{remote.folder}.lock",
    ]


def test_a_mirror_in_use_for_too_long_is_worth_another_attempt(mirrors, remote):
    mirrors.update(remote)
    impatient = replace(mirrors, timeout=timedelta(seconds=0.5))
    lock = mirrors.directory / "mirrors" / f"{remote.folder}.lock"
    with (
        locked(lock, float("inf"), exclusive=True),
        pytest.raises(RepositoryBusy) as failed,
    ):
        impatient.update(remote)
    assert not failed.value.permanent


def _cut_packs(mirror: Path) -> None:
    for pack in (mirror / "objects" / "pack").glob("*.pack"):
        pack.chmod(0o600)
        with pack.open("r+b") as file:
            file.truncate(20)


def _remove_objects(mirror: Path) -> None:
    for file in (mirror / "objects" / "pack").iterdir():
        file.unlink()


def _break_configuration(mirror: Path) -> None:
    (mirror / "config").write_text("[core\n")


def _break_head(mirror: Path) -> None:
    (mirror / "HEAD").write_bytes(b"\0\0")


def _leave_lock(mirror: Path) -> None:
    (mirror / "shallow.lock").touch()


@pytest.mark.parametrize(
    "damage", [_cut_packs, _remove_objects, _break_configuration, _break_head, _leave_lock]
)
def test_a_damaged_mirror_is_made_again(mirrors, remote, upstream, damage):
    mirrors.update(remote)
    damage(mirror_of(mirrors, remote))
    (upstream / "new").touch()
    commit(upstream)
    assert mirrors.update(remote) == Base(head(upstream), "main")
    with mirrors.reading(remote) as mirror:
        assert mirror.git.read("fsck", within=mirror.path) == b""


def test_a_repository_beyond_the_bounds_is_refused_and_leaves_nothing(mirrors, remote, upstream):
    (upstream / "big").write_bytes(os.urandom(300_000))
    commit(upstream)
    small = replace(mirrors, bounds=Bounds(size=100_000))
    with pytest.raises(RepositoryTooBig):
        small.update(remote)
    assert not mirror_of(mirrors, remote).exists()


def test_a_mirror_that_has_grown_too_big_is_made_again(mirrors, remote, upstream):
    small = replace(mirrors, bounds=Bounds(size=500_000))
    for _ in range(4):  # each fits alone, and not all together
        (upstream / "big").write_bytes(os.urandom(200_000))
        commit(upstream)
        assert small.update(remote).commit == head(upstream)


def test_a_token_reaches_the_server_and_no_argument_variable_or_file(
    mirrors, tmp_path, monkeypatch
):
    make_repository(tmp_path / "served" / "work", {"README.md": "# Shop\n"})
    monkeypatch.setattr("django.conf.settings.GIT_ALLOWED_PROTOCOLS", ["http"])
    seen = tmp_path / "seen"
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    real = run_git(tmp_path, "--exec-path")
    fake.write_text(f'#!/bin/sh\n{{ env; echo "$@"; }} >> {seen}\nexec {real}/git "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)
    with GitServer(tmp_path / "served") as server:
        url = f"{server.url}/work/.git"
        remote = Remote("1", url, Login(USER, TOKEN))
        assert mirrors.update(remote).commit == head(tmp_path / "served" / "work")
        assert TOKEN not in repr(remote)
        with pytest.raises(CheckoutFailed, match="could not read Username") as failed:
            mirrors.update(Remote("2", url))
        assert failed.value.permanent
        with pytest.raises(CheckoutFailed, match="Authentication failed") as failed:
            mirrors.update(Remote("3", url, Login(USER, "wrong")))
        assert failed.value.permanent
    assert "ls-remote" in seen.read_text()
    written = [seen, *(path for path in mirrors.directory.rglob("*") if path.is_file())]
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []


def test_a_token_is_not_sent_to_where_a_redirection_leads(mirrors, tmp_path, monkeypatch):
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    monkeypatch.setattr("django.conf.settings.GIT_ALLOWED_PROTOCOLS", ["http"])
    tokens = []

    class Thief(BaseHTTPRequestHandler):
        def do_GET(self):
            tokens.append(self.headers.get("Authorization"))
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    class Redirects(Thief):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{thief.server_port}{self.path}")
            self.end_headers()

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Thief) as thief,
        ThreadingHTTPServer(("127.0.0.1", 0), Redirects) as redirects,
    ):
        for server in (thief, redirects):
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{redirects.server_port}/acme/shop.git"
        with pytest.raises(CheckoutFailed):
            mirrors.update(Remote("1", url, Login(USER, TOKEN)))
        for server in (thief, redirects):
            server.shutdown()
    assert tokens == [None]


@pytest.mark.parametrize("url", ["ssh://git@example.com/x", "http://example.com/x"])
def test_a_token_is_only_sent_over_https(url, settings):
    settings.GIT_ALLOWED_PROTOCOLS = ["http", "https", "ssh"]
    Remote("1", "https://example.com/x", Login(USER, TOKEN))
    with pytest.raises(CheckoutFailed, match="https"):
        Remote("1", url, Login(USER, TOKEN))


@pytest.mark.parametrize("url", ["ext::sh -c id", "-u", "ftp://example.com/x", "https://t@h/x"])
def test_an_address_that_is_not_allowed_is_refused(url):
    with pytest.raises(CheckoutFailed) as refused:
        Remote("1", url)
    assert refused.value.permanent


def test_two_projects_do_not_share_a_mirror(remote):
    assert remote.folder != replace(remote, key="2").folder


def test_a_follow_up_starts_at_the_tasks_branch(mirrors, remote, upstream):
    first = commit_change(mirrors, remote, request_of(mirrors.update(remote), new_file("a")))
    assert mirrors.update(remote, BRANCH).commit == first.commit
    assert mirrors.update(remote).commit == head(upstream)
    assert mirrors.update(remote, f"{BRANCH}-other").commit == head(upstream)


def test_commits_that_others_pushed_to_the_branch_are_taken(mirrors, remote, upstream):
    first = commit_change(mirrors, remote, request_of(mirrors.update(remote), new_file("a")))
    with mirrors.reading(remote) as mirror:
        mirror.push(remote, first.commit, BRANCH)
    run_git(upstream, "checkout", "--quiet", BRANCH)
    (upstream / "review").touch()
    commit(upstream)
    theirs = head(upstream)
    run_git(upstream, "checkout", "--quiet", "main")
    assert mirrors.update(remote, BRANCH).commit == theirs
    second = commit_change(
        mirrors, remote, request_of(mirrors.update(remote, BRANCH), new_file("b"))
    )
    assert second.parent == theirs
    assert mirrors.update(remote, BRANCH).commit == second.commit


def test_a_branch_that_others_rewrote_replaces_ours(mirrors, remote, upstream):
    base = mirrors.update(remote)
    commit_change(mirrors, remote, request_of(base, new_file("a")))
    run_git(upstream, "checkout", "--quiet", "-b", BRANCH)
    (upstream / "rewritten").touch()
    commit(upstream)
    assert mirrors.update(remote, BRANCH).commit == head(upstream)


def test_unused_mirrors_and_leftovers_are_removed(mirrors, remote):
    mirrors.update(remote)
    left = [mirrors.directory / "mirrors" / "asking-1", mirrors.directory / "changes" / "change-1"]
    for folder in left:
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    assert mirrors.remove_unused(timedelta(hours=1)) == 0
    assert not any(folder.exists() for folder in left)
    os.utime(mirrors.directory / "mirrors" / f"{remote.folder}.lock", (0, 0))
    assert mirrors.remove_unused(timedelta(hours=1)) == 1
    assert not mirror_of(mirrors, remote).exists()
