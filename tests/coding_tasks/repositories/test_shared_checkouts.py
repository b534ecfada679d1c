"""Checkouts are written out once, held by leases, and evicted."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from coding_tasks.failures import CheckoutFailed, RepositoryTooBig
from coding_tasks.repositories.bounds import BOUNDS, Bounds
from coding_tasks.repositories.changes import commit_change
from coding_tasks.repositories.remotes import Remote
from tests.coding_tasks.repositories.conftest import BRANCH, new_file, request_of
from tests.examples import examples
from tests.git_repositories import commit, import_files, make_repository, run_git

NOBODY = 65_534
ALWAYS = {"older_than": timedelta(0), "most_bytes": 0}


def provide(checkouts, mirrors, remote, holder="run"):
    return checkouts.provide(mirrors, remote, mirrors.update(remote), holder=holder)


def test_a_commit_is_written_out_once(checkouts, mirrors, remote, upstream):
    shared = provide(checkouts, mirrors, remote)
    assert (shared.path / "src" / "shop.py").read_text() == "sell()\n"
    born = shared.path.stat().st_ino
    assert provide(checkouts, mirrors, remote, "other") == shared
    assert shared.path.stat().st_ino == born
    (upstream / "new").touch()
    commit(upstream)
    newer = provide(checkouts, mirrors, remote)
    assert newer.path != shared.path
    assert (newer.path / "new").exists()


def test_git_works_in_a_checkout_and_knows_only_its_commit(checkouts, mirrors, remote):
    base = mirrors.update(remote)
    other = commit_change(mirrors, remote, request_of(base, new_file("a")))
    shared = checkouts.provide(mirrors, remote, base, holder="run")
    assert run_git(shared.path, "status", "--porcelain") == ""
    assert run_git(shared.path, "rev-parse", "HEAD") == shared.commit
    with pytest.raises(subprocess.CalledProcessError):
        run_git(shared.path, "cat-file", "-e", other.commit)
    assert str(mirrors.directory / "mirrors") not in (shared.path / ".git" / "config").read_text()


def test_two_runs_at_once_write_it_out_once(checkouts, mirrors, remote):
    base = mirrors.update(remote)
    with ThreadPoolExecutor(4) as pool:
        found = set(
            pool.map(
                lambda number: checkouts.provide(mirrors, remote, base, holder=str(number)),
                range(4),
            )
        )
    assert len(found) == 1
    names = [name for name in os.listdir(checkouts.directory / "checkouts") if name[0] != "."]
    assert len(names) == 1


def test_an_empty_repository_has_an_empty_checkout(checkouts, mirrors, tmp_path):
    run_git(tmp_path, "init", "--quiet", "--bare", "empty.git")
    shared = provide(checkouts, mirrors, Remote("1", f"file://{tmp_path}/empty.git"))
    assert shared.commit == ""
    assert os.listdir(shared.path) == [".git"]


def test_submodules_pointers_and_links_stay_what_they_are(checkouts, mirrors, remote, upstream):
    inner = make_repository(upstream.parent / "inner", {"inner.txt": "inner"})
    allowed = ("-c", "protocol.file.allow=always")
    run_git(upstream, *allowed, "submodule", "add", "--quiet", inner, "sub")
    (upstream / "big.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    (upstream / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (upstream / "link").symlink_to("/etc/passwd")
    commit(upstream)
    shared = provide(checkouts, mirrors, remote)
    assert os.listdir(shared.path / "sub") == []
    assert (shared.path / "big.bin").read_text().startswith("version")
    assert os.readlink(shared.path / "link") == "/etc/passwd"
    assert run_git(shared.path, "status", "--porcelain") == ""


def test_odd_names_are_written_out(checkouts, mirrors, tmp_path):
    names = ('"new\\nline"', '"caf\\351"', '"quo\\"te"', "a..b", "README.md", "readme.md")
    shared = provide(checkouts, mirrors, Remote("1", import_files(tmp_path / "origin", *names)))
    found = set(os.listdir(os.fsencode(shared.path)))
    assert found == {b".git", b"new\nline", b"caf\xe9", b'quo"te', b"a..b", b"README.md",
                     b"readme.md"}  # fmt: skip


def test_the_owner_gets_the_files_and_links_are_not_followed(checkouts, mirrors, remote, upstream):
    if os.geteuid():
        pytest.skip("only root can give files away")
    (upstream / "link").symlink_to(upstream / "README.md")
    commit(upstream)
    shared = provide(replace(checkouts, owner=(NOBODY, NOBODY)), mirrors, remote)
    found = [shared.path, *shared.path.rglob("*")]
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in found} == {(NOBODY, NOBODY)}
    assert (upstream / "README.md").stat().st_uid == 0
    assert [
        path for path in found if not path.is_symlink() and not path.stat().st_mode & 0o004
    ] == []


def test_a_checkout_in_use_is_not_evicted(checkouts, mirrors, remote):
    shared = provide(checkouts, mirrors, remote, "one")
    provide(checkouts, mirrors, remote, "two")
    assert checkouts.evict(**ALWAYS) == 0
    checkouts.release(shared, "one")
    assert checkouts.evict(**ALWAYS) == 0
    checkouts.release(shared, "two")
    assert checkouts.evict(**ALWAYS) == 1
    assert not shared.path.exists()
    assert provide(checkouts, mirrors, remote).path.exists()


def test_a_checkout_that_is_gone_cannot_be_renewed(checkouts, mirrors, remote):
    shared = provide(checkouts, mirrors, remote)
    checkouts.release(shared, "run")
    checkouts.evict(**ALWAYS)
    checkouts.release(shared, "run")
    with pytest.raises(CheckoutFailed):
        checkouts.renew(shared, "run")


def test_a_network_that_is_down_costs_no_mirror(checkouts, mirrors, remote, upstream):
    base = mirrors.update(remote)
    commit_change(mirrors, remote, request_of(base, new_file("a")))
    upstream.rename(upstream.with_name("gone"))
    with pytest.raises(CheckoutFailed):
        checkouts.provide(mirrors, remote, replace(base, commit="1" * 40), holder="run")
    with mirrors.reading(remote) as mirror:
        assert mirror.tip(BRANCH)


def test_a_lease_that_is_not_renewed_ends(checkouts, mirrors, remote):
    shared = provide(checkouts, mirrors, remote)
    lease = next((shared.path.parent / "leases").iterdir())
    os.utime(lease, (0, 0))
    checkouts.renew(shared, "run")
    assert checkouts.evict(**ALWAYS) == 0
    os.utime(lease, (0, 0))
    assert checkouts.evict(**ALWAYS) == 1


def test_the_oldest_checkouts_make_room(checkouts, mirrors, remote, upstream):
    made = []
    for number in range(3):
        (upstream / "file").write_text(str(number) * 1000)
        commit(upstream)
        shared = provide(checkouts, mirrors, remote)
        checkouts.release(shared, "run")
        os.utime(shared.path.parent / "leases", (number + 1, number + 1))
        made.append(shared.path)
    size = int((made[0].parent / "size").read_text())
    assert checkouts.evict(older_than=timedelta(days=40_000), most_bytes=3 * size + 5_000) == 0
    assert checkouts.evict(older_than=timedelta(days=40_000), most_bytes=2 * size + 5_000) == 1
    assert [path.exists() for path in made] == [False, True, True]


def test_leftovers_of_killed_workers_are_removed(checkouts, mirrors, remote):
    shared = provide(checkouts, mirrors, remote)
    left = checkouts.directory / "checkouts" / "new-killed"
    (left / "repository").mkdir(parents=True)
    checkouts.evict(**ALWAYS)
    assert left.exists()
    os.utime(left, (0, 0))
    checkouts.evict(**ALWAYS)
    assert not left.exists()
    assert shared.path.exists()


def test_a_mirror_with_damaged_files_is_fetched_anew(checkouts, mirrors, remote, upstream):
    (upstream / "big").write_bytes(os.urandom(100_000))
    commit(upstream)
    base = mirrors.update(remote)
    packs = mirrors.directory / "mirrors" / remote.folder / "repository" / "objects" / "pack"
    for pack in packs.glob("*.pack"):
        pack.chmod(0o600)
        content = bytearray(pack.read_bytes())
        content[len(content) // 2] ^= 255
        pack.write_bytes(content)
    shared = checkouts.provide(mirrors, remote, base, holder="run")
    assert (shared.path / "big").read_bytes() == (upstream / "big").read_bytes()


def test_a_commit_beyond_the_bounds_is_not_written_out(checkouts, mirrors, tmp_path):
    url = make_repository(tmp_path / "origin", {f"{number}": "x" * 10_000 for number in range(200)})
    small = replace(checkouts, bounds=Bounds(size=1_000_000))
    with pytest.raises(RepositoryTooBig):
        provide(small, mirrors, Remote("1", f"file://{tmp_path}/origin"))
    assert url
    names = os.listdir(checkouts.directory / "checkouts")
    assert [name for name in names if not name.startswith(".")] == []


def test_a_small_pack_with_a_huge_file_is_not_written_out(checkouts, mirrors, remote, upstream):
    with (upstream / "zeros").open("wb") as file:
        file.truncate(20_000_000)
    commit(upstream)
    small = replace(checkouts, bounds=Bounds(size=5_000_000))
    with pytest.raises(RepositoryTooBig):
        provide(small, mirrors, remote)


@pytest.mark.parametrize("link_first", [True, False])
def test_a_file_below_a_link_of_the_same_name_is_written_nowhere_else(
    checkouts, mirrors, remote, upstream, tmp_path, link_first
):
    (tmp_path / "target").mkdir()
    link = run_git(upstream, "hash-object", "-w", "--stdin", given=str(tmp_path / "target"))
    blob = run_git(upstream, "hash-object", "-w", "--stdin", given="owned")
    inner = run_git(upstream, "mktree", given=f"100644 blob {blob}\tfile\n")
    entries = [b"120000 a\0" + bytes.fromhex(link), b"40000 a\0" + bytes.fromhex(inner)]
    (tmp_path / "tree").write_bytes(b"".join(entries if link_first else entries[::-1]))
    options = ("-t", "tree", "-w", "--literally")
    tree = run_git(upstream, "hash-object", *options, str(tmp_path / "tree"))
    run_git(upstream, "reset", "--soft", run_git(upstream, "commit-tree", "-m", "tree", tree))
    with suppress(CheckoutFailed):
        provide(checkouts, mirrors, remote)
    assert list((tmp_path / "target").iterdir()) == []


def test_a_large_file_fits(checkouts, mirrors, tmp_path):
    """The file has 10 MB here, and 200 MB in `make soak`."""
    megabytes = examples(10)
    make_repository(tmp_path / "origin", {"README.md": "# Big\n"})
    with (tmp_path / "origin" / "big").open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1_000_000))
    run_git(tmp_path / "origin", "-c", "core.compression=0", "add", "big")
    run_git(tmp_path / "origin", "commit", "--quiet", "--message=big")
    shared = provide(checkouts, mirrors, Remote("1", f"file://{tmp_path}/origin"))
    assert (shared.path / "big").stat().st_size == megabytes * 1_000_000
    assert BOUNDS.size > 200_000_000


def test_a_killed_process_leaves_no_lock(checkouts, mirrors, remote):
    base = mirrors.update(remote)
    lock = mirrors.directory / "mirrors" / f"{remote.folder}.lock"
    holding = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import pathlib, sys, time\n"
            "from coding_tasks.repositories.file_locks import locked\n"
            "with locked(pathlib.Path(sys.argv[1]), time.monotonic() + 9, exclusive=True):\n"
            "    print('held', flush=True)\n"
            "    time.sleep(600)\n",
            str(lock),
        ],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert holding.stdout is not None
    assert holding.stdout.readline() == b"held\n"
    holding.kill()
    holding.wait()
    holding.stdout.close()
    assert replace(mirrors, timeout=timedelta(seconds=5)).update(remote) == base
