"""Hostile repositories are refused for good before they are unpacked, and cleaned up."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coding_tasks.failures import CheckoutFailed, RepositoryTooBig, UnpackingFailed
from coding_tasks.reading.checkouts import ClonedCheckout, Cloner
from coding_tasks.repositories.bounds import BOUNDS
from tests.git_repositories import EMPTY_FILE, import_files, make_repository, run_git
from tests.stopwatch import Stopwatch


@pytest.fixture
def checkouts(tmp_path: Path) -> Cloner:
    (tmp_path / "clones").mkdir()
    return Cloner(directory=tmp_path / "clones")


@pytest.fixture
def repository(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that commits a tree of `git mktree` lines and returns its address."""
    origin = tmp_path / "origin"
    make_repository(origin, {"README.md": "# Hostile\n"})
    run_git(origin, "hash-object", "-w", "--stdin", given="")

    def make(tree: str) -> str:
        name = run_git(origin, "mktree", given=tree)
        run_git(origin, "reset", "--soft", run_git(origin, "commit-tree", "-m", "tree", name))
        return f"file://{origin}"

    make.origin = origin
    return make


def refused(checkouts: Cloner, url: str) -> CheckoutFailed:
    """Return why the repository is refused, and check that it left nothing behind."""
    with pytest.raises(CheckoutFailed) as failed, checkouts.checkout(url):
        pass
    assert failed.value.permanent
    assert list(checkouts.directory.iterdir()) == []
    return failed.value


@pytest.fixture
def most_entries_seen(checkouts, monkeypatch) -> Iterator[list[int]]:
    """The number of entries of each clone when it was removed."""
    seen: list[int] = []

    def remove(directory: Path) -> None:
        seen.append(sum(len(folders) + len(files) for _, folders, files in os.walk(directory)))
        original(directory)

    from coding_tasks.reading import checkouts as module

    original = module.remove_tree
    monkeypatch.setattr(module, "remove_tree", remove)
    return seen


@pytest.mark.parametrize("name", ["d", "n" * 200])
def test_nested_folders_are_refused_for_good_and_before_any_is_made(
    checkouts, tmp_path, name, most_entries_seen
):
    url = import_files(tmp_path / "origin", "/".join([name] * 1_500) + "/file")
    assert isinstance(refused(checkouts, url), RepositoryTooBig)
    assert most_entries_seen[0] < 100


@pytest.mark.parametrize("depth", [BOUNDS.depth, BOUNDS.depth + 1])
def test_folders_may_be_nested_up_to_the_bound(checkouts, tmp_path, depth):
    url = import_files(tmp_path / "origin", "/".join(["d"] * depth) + "/file")
    if depth > BOUNDS.depth:
        assert "nested" in str(refused(checkouts, url))
    else:
        with checkouts.checkout(url) as checkout:
            assert checkout.files() == ["/".join(["d"] * depth) + "/file"]


def test_very_many_empty_files_are_refused_before_any_is_made(
    checkouts, repository, most_entries_seen
):
    origin = repository.origin
    kind, name = "blob", EMPTY_FILE
    for _ in range(2):  # a thousand folders of one thousand files, in three objects
        mode = "100644" if kind == "blob" else "040000"
        entries = "".join(f"{mode} {kind} {name}\t{number}\n" for number in range(1_000))
        kind, name = "tree", run_git(origin, "mktree", given=entries)
    with Stopwatch() as waited:
        url = repository(f"040000 tree {name}\td\n")
        assert isinstance(refused(checkouts, url), RepositoryTooBig)
    assert most_entries_seen[0] < 100
    assert waited.seconds < 20


def test_files_and_folders_count_up_to_the_bound(checkouts, tmp_path):
    url = import_files(tmp_path / "origin", "a/b/c", "d")
    with replace(checkouts, bounds=replace(BOUNDS, entries=4)).checkout(url) as checkout:
        assert checkout.files() == ["d", "a/b/c"]
    assert "more than 3" in str(refused(replace(checkouts, bounds=replace(BOUNDS, entries=3)), url))


def test_a_small_pack_with_a_huge_file_is_refused_before_it_is_unpacked(
    checkouts, tmp_path, most_entries_seen
):
    origin = tmp_path / "origin"
    make_repository(origin, {"README.md": "# Hostile\n"})
    with (origin / "zeros").open("wb") as file:
        file.truncate(3_000_000)
    run_git(origin, "add", "zeros")
    run_git(origin, "commit", "--quiet", "--message=zeros")
    small = replace(checkouts, bounds=replace(BOUNDS, size=1_000_000))
    assert "more than 1000000 bytes" in str(refused(small, f"file://{origin}"))
    assert most_entries_seen[0] < 100


def test_one_file_many_times_is_counted_as_often_as_it_would_be_written(checkouts, tmp_path):
    origin = tmp_path / "origin"
    make_repository(origin, {f"{number}": "x" * 10_000 for number in range(200)})
    small = replace(checkouts, bounds=replace(BOUNDS, size=1_000_000))
    assert isinstance(refused(small, f"file://{origin}"), RepositoryTooBig)


@pytest.mark.parametrize("path", ["/".join(["n" * 250] * 4), "n" * 300])
def test_paths_and_names_that_are_too_long_are_refused(checkouts, tmp_path, path):
    assert "too long" in str(refused(checkouts, import_files(tmp_path / "origin", path)))


@pytest.mark.parametrize(
    "tree",
    [
        f"100644 blob {EMPTY_FILE}\t.git\n",
        f"100644 blob {EMPTY_FILE}\t.GIT\n",
        f"100644 blob {EMPTY_FILE}\tgit~1\n",
        f"100644 blob {EMPTY_FILE}\t..\n",
        f"100644 blob {EMPTY_FILE}\t.\n",
    ],
)
def test_names_that_git_will_not_write_are_refused_for_good(checkouts, repository, tree):
    assert isinstance(refused(checkouts, repository(tree)), UnpackingFailed)


def test_a_folder_called_like_gits_own_is_refused_for_good(checkouts, repository):
    inner = run_git(repository.origin, "mktree", given=f"100755 blob {EMPTY_FILE}\tconfig\n")
    url = repository(f"040000 tree {inner}\t.git\n")
    assert isinstance(refused(checkouts, url), UnpackingFailed)


def test_names_with_newlines_and_bytes_and_other_cases_are_taken(checkouts, tmp_path):
    url = import_files(tmp_path / "origin", '"new\\nline"', '"caf\\351"', "README.md", "readme.md")
    with checkouts.checkout(url) as checkout:
        assert checkout.files() == ["README.md", "new\nline", "readme.md"]


def test_a_chain_of_links_leads_nowhere(checkouts, tmp_path):
    origin = tmp_path / "origin"
    make_repository(origin, {"README.md": "# Hostile\n"})
    for number in range(200):
        (origin / f"link{number}").symlink_to(f"link{number + 1}")
    (origin / "loop").symlink_to("loop")
    (origin / "up").symlink_to("..")
    run_git(origin, "add", "--all")
    run_git(origin, "commit", "--quiet", "--message=links")
    with checkouts.checkout(f"file://{origin}") as checkout:
        assert checkout.read("link0", 100) == b"link1"
        assert checkout.read("up/origin/README.md", 100) is None


def test_a_server_that_never_stops_talking_is_refused(checkouts, tmp_path, monkeypatch):
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexec yes 'remote: still counting objects' >&2\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)
    assert isinstance(refused(checkouts, "https://h/x"), RepositoryTooBig)


def test_a_disk_that_is_full_while_unpacking_is_worth_another_attempt(
    checkouts, tmp_path, monkeypatch
):
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\n"
        'for last; do :; done; case "$*" in *clone*) mkdir "$last";; *reset*)'
        " echo 'fatal: cannot create x: No space left on device' >&2; exit 128;; esac\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)
    with pytest.raises(UnpackingFailed) as failed, checkouts.checkout("https://h/x"):
        pass
    assert not failed.value.permanent


def test_the_files_of_a_deep_wide_or_odd_tree_are_listed_within_bounds(tmp_path):
    folder = tmp_path / "root"
    for _ in range(300):  # deeper than the longest path
        folder = folder / ("n" * 10)
    folder.mkdir(parents=True)
    root = tmp_path / "root"
    os.mkfifo(root / "fifo")
    (root / "loop").symlink_to(root)
    (root / "file").touch()
    assert ClonedCheckout(root).files() == ["file"]
    for number in range(50):
        os.mkfifo(root / f"fifo{number}")
    assert ClonedCheckout(root, most_entries=10).files() in ([], ["file"])
