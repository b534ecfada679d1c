"""A patch of the agent becomes a commit or is refused. It runs nothing and stays in the tree."""

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from coding_tasks.failures import ChangeRefused
from coding_tasks.repositories.bounds import BOUNDS
from coding_tasks.repositories.branch_names import branch_name
from coding_tasks.repositories.changes import (
    MOST_PATCH,
    ChangedFile,
    Requester,
    commit_change,
    restore_change,
)
from coding_tasks.repositories.mirrors import Base
from coding_tasks.repositories.remotes import Remote
from tests.coding_tasks.repositories.conftest import BRANCH, new_file, request_of
from tests.git_repositories import commit, import_files, make_repository, run_git

TASK = UUID("01234567-89ab-cdef-0123-456789abcdef")


def show(mirrors, remote, *arguments: str) -> str:
    with mirrors.reading(remote) as mirror:
        return run_git(mirror.path, *arguments)


def edited(directory: Path) -> bytes:
    """Return what changed in a working tree, as the sandbox reports it, and undo it."""
    run_git(directory, "add", "--all")
    options = ("--cached", "--binary", "--full-index", "--no-renames", "--output=../patch")
    run_git(directory, "diff", *options)
    run_git(directory, "reset", "--quiet", "--hard")
    return (directory.parent / "patch").read_bytes()


def test_a_patch_becomes_a_commit_of_the_bot_with_its_requester(mirrors, remote, upstream):
    base = mirrors.update(remote)
    (upstream / "README.md").write_text("# Shop\n\n--version\n")
    (upstream / "src" / "shop.py").unlink()
    (upstream / "logo").write_bytes(bytes(range(256)))
    change = commit_change(mirrors, remote, request_of(base, edited(upstream)))
    assert change.files == (
        ChangedFile("README.md", 2, 0),
        ChangedFile("logo", 0, 0),
        ChangedFile("src/shop.py", 0, 1),
    )
    assert show(mirrors, remote, "show", "-s", "--format=%an <%ae>|%cn|%P|%B", BRANCH) == (
        f"Tollgate <bot@localhost>|Tollgate|{base.commit}|Add a flag\n\n"
        "Co-authored-by: Ada <ada@example.com>"
    )
    assert show(mirrors, remote, "ls-tree", "-r", "--name-only", BRANCH) == "README.md\nlogo"
    run_git(upstream, "apply", "--index", "-", given=change.patch.decode())
    assert (upstream / "logo").read_bytes() == bytes(range(256))


def test_the_same_request_makes_the_same_commit(mirrors, remote):
    request = request_of(mirrors.update(remote), new_file("a"))
    first = commit_change(mirrors, remote, request)
    assert commit_change(mirrors, remote, request) == first
    when = str(int(request.committed_at.timestamp())).encode()
    assert first.description.count(when + b" +0000\n") == 2  # not the time of the attempt


def test_a_follow_up_adds_a_commit_to_the_branch(mirrors, remote):
    first = commit_change(mirrors, remote, request_of(mirrors.update(remote), new_file("a")))
    base = mirrors.update(remote, BRANCH)
    second = commit_change(mirrors, remote, request_of(base, new_file("b")))
    assert second.parent == first.commit
    assert [file.path for file in second.files] == ["b"]
    assert show(mirrors, remote, "ls-tree", "--name-only", BRANCH).split() == [
        "README.md",
        "a",
        "b",
        "src",
    ]


@pytest.mark.parametrize("patch", [b"", b"\n", b" \n\n"])
def test_an_empty_patch_makes_no_commit(mirrors, remote, patch):
    assert commit_change(mirrors, remote, request_of(mirrors.update(remote), patch)) is None
    assert show(mirrors, remote, "branch", "--list") == ""


def test_a_patch_that_changes_nothing_makes_no_commit(mirrors, remote):
    same = (
        b"diff --git a/README.md b/README.md\n--- a/README.md\n+++ b/README.md\n"
        b"@@ -1 +1 @@\n-# Shop\n+# Shop\n"
    )
    assert commit_change(mirrors, remote, request_of(mirrors.update(remote), same)) is None


def link(path: str, target: str) -> bytes:
    return new_file(path, target, "120000") + b"\\ No newline at end of file\n"


GITLINK = new_file("vendored", "Subproject commit " + "1" * 40, "160000")


@pytest.mark.parametrize(
    "patch",
    [
        new_file("../outside"),
        new_file("src/../../outside"),
        new_file("/etc/passwd"),
        new_file(".git/hooks/post-commit", mode="100755"),
        new_file(".GIT/config"),
        new_file(".git", "gitdir: /tmp/elsewhere"),
        new_file("src/.git", "gitdir: /tmp/elsewhere"),
        new_file("src/.git/config"),
        new_file("git~1/config"),
        new_file(".g\\342\\200\\214it/config"),
        link("out", "/tmp") + new_file("out/escaped"),
        link("up", "..") + new_file("up/escaped"),
        GITLINK,
        new_file(".gitmodules", '[submodule "x"]'),
        new_file("src/.gitattributes", "*.x " + "a" * 3_000),
        b"not a patch\n",
        new_file("README.md"),
        new_file("a")[:-10],
        b"diff --git a/README.md b/README.md\nrename from README.md\nrename to ../x\n",
        b"diff --git a/a b/a\nnew file mode 100644\nGIT binary patch\nliteral 3\nzzzzz\n\n",
    ],
)
def test_a_patch_that_must_not_be_applied_is_refused(mirrors, remote, patch):
    base = mirrors.update(remote)
    with pytest.raises(ChangeRefused) as refused:
        commit_change(mirrors, remote, request_of(base, patch))
    assert str(refused.value).startswith("The change ")
    assert str(refused.value).isprintable()
    assert show(mirrors, remote, "branch", "--list") == ""
    assert list((mirrors.directory / "changes").iterdir()) == []
    assert not (mirrors.directory / "outside").exists()


def test_terminal_escapes_of_a_patch_do_not_reach_the_message(mirrors, remote):
    base = mirrors.update(remote)
    with pytest.raises(ChangeRefused) as refused:
        commit_change(mirrors, remote, request_of(base, new_file("../\x1b[2J\x1b]0;x\x07")))
    assert "\x1b" not in str(refused.value)


def test_a_patch_through_a_link_of_the_repository_is_refused(mirrors, remote, upstream, tmp_path):
    (tmp_path / "target").mkdir()
    (upstream / "out").symlink_to(tmp_path / "target")
    commit(upstream)
    base = mirrors.update(remote)
    with pytest.raises(ChangeRefused, match="symbolic link"):
        commit_change(mirrors, remote, request_of(base, new_file("out/escaped")))
    assert list((tmp_path / "target").iterdir()) == []


def test_a_patch_that_is_too_large_is_refused(mirrors, remote):
    base = mirrors.update(remote)
    with pytest.raises(ChangeRefused, match="larger than 10 MB"):
        commit_change(mirrors, remote, request_of(base, new_file("a", "x" * MOST_PATCH)))


def _binary(path: str, content: bytes, size: int) -> bytes:
    """Return a patch that adds a binary file, in git's base 85."""
    import base64

    packed = zlib.compress(content, 9)
    lines = []
    for start in range(0, len(packed), 52):
        piece = packed[start : start + 52]
        length = chr(ord("A") + len(piece) - 1 if len(piece) <= 26 else ord("a") + len(piece) - 27)
        lines.append(length + base64.b85encode(piece, pad=True).decode())
    body = "\n".join(lines)
    return (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\nindex {'0' * 40}.."
        f"{'1' * 40}\nGIT binary patch\nliteral {size}\n{body}\n\nliteral 0\nHcmV?d00001\n\n"
    ).encode()


def test_a_small_patch_that_unpacks_to_a_huge_file_is_refused(mirrors, remote):
    base = mirrors.update(remote)
    small = replace(mirrors, bounds=replace(BOUNDS, size=5_000_000))
    bomb = _binary("zeros", bytes(20_000_000), 20_000_000)
    assert len(bomb) < 100_000
    with pytest.raises(ChangeRefused):
        commit_change(small, remote, request_of(base, bomb))
    allowed = _binary("zeros", bytes(1_000_000), 1_000_000)
    with pytest.raises(ChangeRefused, match="incorrect result"):  # the id in it is made up
        commit_change(small, remote, request_of(base, allowed))


def test_a_change_that_is_too_large_to_be_shown_is_refused(mirrors, remote):
    base = mirrors.update(remote)
    small = replace(mirrors, bounds=replace(BOUNDS, entries=10))  # and 4,000 bytes of output
    with pytest.raises(ChangeRefused, match="to be shown"):
        commit_change(small, remote, request_of(base, new_file("a", "x" * 5_000)))


def test_too_many_files_are_refused(mirrors, remote):
    base = mirrors.update(remote)
    small = replace(mirrors, bounds=replace(BOUNDS, entries=10))
    patch = b"".join(new_file(f"many/{number}") for number in range(20))
    with pytest.raises(ChangeRefused, match="more than 10 files"):
        commit_change(small, remote, request_of(base, patch))


def test_no_code_of_the_repository_runs_on_this_machine(mirrors, remote, upstream, tmp_path):
    ran = tmp_path / "ran"
    (upstream / ".gitattributes").write_text("* filter=f diff=f merge=f\n")
    commit(upstream)
    base = mirrors.update(remote)
    for name in ("post-commit", "reference-transaction", "post-receive", "post-applypatch"):
        hook = mirrors.directory / "mirrors" / remote.folder / "repository" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
        hook.chmod(0o755)
    patch = new_file(".gitconfig", f'[filter "f"] clean = touch {ran}') + new_file(
        ".lfsconfig", "[core] fsmonitor = touch"
    )
    change = commit_change(mirrors, remote, request_of(base, patch))
    assert [file.path for file in change.files] == [".gitconfig", ".lfsconfig"]
    assert not ran.exists()


def test_a_secret_in_a_file_that_counts_as_binary_is_in_the_text(mirrors, remote, upstream):
    base = mirrors.update(remote)
    (upstream / ".gitattributes").write_text("*.env -diff\n")
    (upstream / "prod.env").write_text("TOKEN=hunter2\n")
    (upstream / "zero").write_bytes(b"TOKEN=hunter3\n\0")
    change = commit_change(mirrors, remote, request_of(base, edited(upstream)))
    assert b"\n+TOKEN=hunter2\n" in change.added_text
    assert b"\n+TOKEN=hunter3\n" in change.added_text
    assert b"hunter3" not in change.patch


def test_two_tasks_at_once_have_two_branches_and_share_nothing(mirrors, remote):
    base = mirrors.update(remote)
    names = [f"{BRANCH}-{number}" for number in range(6)]

    def work(name: str):
        return commit_change(mirrors, remote, request_of(base, new_file(name[-1]), name))

    with ThreadPoolExecutor(6) as pool:
        changes = list(pool.map(work, names))
    for change, name in zip(changes, names, strict=True):
        assert change.parent == base.commit
        assert [file.path for file in change.files] == [name[-1]]
        assert show(mirrors, remote, "rev-parse", name) == change.commit


def test_the_first_commit_of_an_empty_repository(mirrors, tmp_path):
    run_git(tmp_path, "init", "--quiet", "--bare", "empty.git")
    remote = Remote("1", f"file://{tmp_path}/empty.git")
    change = commit_change(mirrors, remote, request_of(mirrors.update(remote), new_file("a")))
    assert change.parent == ""
    assert show(mirrors, remote, "log", "--format=%s", BRANCH) == "Add a flag"


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("new\\nline", "new\nline"),
        ('quo\\"te', 'quo"te'),
        ("caf\\351", "caf\\xe9"),
        ("a..b", "a..b"),
        ("..c", "..c"),
        ("$(touch x);`id`", "$(touch x);`id`"),
        ("-rf", "-rf"),
        ("a\\\\..\\\\b", "a\\..\\b"),
        ("tab\\there", "tab\there"),
    ],
)
def test_odd_names_are_committed_as_they_are(mirrors, tmp_path, quoted, shown):
    remote = Remote("1", import_files(tmp_path / "origin", f'"{quoted}"', "other"))
    base = mirrors.update(remote)
    patch = new_file(f"{quoted}.copy")
    change = commit_change(mirrors, remote, request_of(base, patch))
    assert [file.path for file in change.files] == [f"{shown}.copy"]


def test_a_change_beside_submodules_links_and_pointers_leaves_them(mirrors, remote, upstream):
    inner = make_repository(upstream.parent / "inner", {"inner.txt": "inner"})
    run_git(
        upstream, "-c", "protocol.file.allow=always", "submodule", "add", "--quiet", inner, "sub"
    )
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n"
    (upstream / "big.bin").write_text(pointer)
    (upstream / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (upstream / "link").symlink_to("README.md")
    commit(upstream)
    base = mirrors.update(remote)
    before = show(mirrors, remote, "ls-tree", "-r", base.commit).splitlines()
    change = commit_change(mirrors, remote, request_of(base, new_file("a")))
    after = show(mirrors, remote, "ls-tree", "-r", change.commit).splitlines()
    assert [line for line in after if not line.endswith("\ta")] == before
    removed = (
        b"diff --git a/sub b/sub\ndeleted file mode 160000\n--- a/sub\n+++ /dev/null\n"
        b"@@ -1 +0,0 @@\n-Subproject commit "
        + run_git(upstream, "rev-parse", "HEAD:sub").encode()
        + b"\n"
    )
    with pytest.raises(ChangeRefused, match="submodule"):
        commit_change(mirrors, remote, request_of(base, removed))


def test_a_lost_commit_is_made_again(mirrors, remote):
    first = commit_change(mirrors, remote, request_of(mirrors.update(remote), new_file("a")))
    second = commit_change(
        mirrors, remote, request_of(mirrors.update(remote, BRANCH), new_file("b"))
    )
    mirrors.rebuild(remote)
    for change in (first, second):
        restore_change(mirrors, remote, change)
    assert mirrors.update(remote, BRANCH).commit == second.commit
    restore_change(mirrors, remote, second)


@pytest.mark.parametrize(
    ("requester", "trailer"),
    [
        (Requester("Ada", ""), "Requested-by: Ada"),
        (Requester("A\nCo-authored-by: Eve <e@x>", "a@x"),
         "Co-authored-by: A Co-authored-by: Eve e@x <a@x>"),
        (Requester("", "a@x\n\nSigned-off-by: Eve"),
         "Co-authored-by: unknown <a@x Signed-off-by: Eve>"),
    ],
)  # fmt: skip
def test_names_cannot_add_trailers(mirrors, remote, requester, trailer):
    request = request_of(mirrors.update(remote), new_file("a"), requester=requester)
    change = commit_change(mirrors, remote, replace(request, subject="Fix\n\nSigned-off-by: E"))
    body = change.description.decode().split("\n\n", 1)[1]
    assert body == f"Fix Signed-off-by: E\n\n{trailer}\n"


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Add a --version flag!", "tollgate/add-a-version-flag-0123456789ab"),
        ("$(rm -rf ~); `id` | tee > x & \x1b[2J", "tollgate/rm-rf-id-tee-x-2j-0123456789ab"),
        ("../../.git/refs@{1}^~:?*[\\ .lock", "tollgate/git-refs-1-lock-0123456789ab"),
        ("Größe ändern", "tollgate/groe-andern-0123456789ab"),
        ("日本語", "tollgate/0123456789ab"),
        ("", "tollgate/0123456789ab"),
        ("-" * 100, "tollgate/0123456789ab"),
        ("a" * 39 + " b", "tollgate/" + "a" * 39 + "-0123456789ab"),
    ],
)
def test_a_branch_is_named_after_its_task(title, name, tmp_path):
    assert branch_name(title, TASK) == name
    run_git(tmp_path, "check-ref-format", "--branch", name)


def test_a_change_on_an_unknown_base_fails(mirrors, remote):
    from coding_tasks.failures import CheckoutFailed

    with pytest.raises(CheckoutFailed):
        commit_change(mirrors, remote, request_of(Base("0" * 40, "main"), new_file("a")))
    assert os.listdir(mirrors.directory / "changes") == []
