"""The change of a tree as a patch, made by a git that runs inside on our own repository."""

import json
import os
import subprocess
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from coding_tasks.sandbox import export
from coding_tasks.sandbox.errors import ExportFailed, TooBig
from coding_tasks.sandbox.gvisor.sandbox import GVisor
from coding_tasks.sandbox.interface import Change, Storage, Workspace
from tests.coding_tasks.sandbox.conftest import existing, owned, shell
from tests.git_repositories import run_git


@dataclass(frozen=True)
class Checkout:
    """A bare repository, a commit of it, and a tree with this commit's files."""

    repository: Path
    commit: str
    tree: Path
    index: Path

    @classmethod
    def make(cls, sandbox, directory: Path) -> "Checkout":
        """Commit what is in `directory/source`, and check it out as the sandbox's user."""
        source, repository, tree = (directory / name for name in ("source", "bare.git", "tree"))
        if not (source / ".git").exists():
            run_git(source, "init", "--quiet", "--initial-branch=main")
        run_git(source, "add", "--all")
        run_git(source, "commit", "--quiet", "--allow-empty", "--message=begin")
        run_git(directory, "clone", "--quiet", "--bare", str(source), str(repository))
        tree.mkdir()
        index = directory / "index"
        environment = os.environ | {"GIT_INDEX_FILE": str(index)}
        for command in (["read-tree", "HEAD"], ["checkout-index", "--all", "--index"]):
            subprocess.run(
                ["git", f"--git-dir={repository}", f"--work-tree={tree}", *command],
                check=True, env=environment, cwd=tree,
            )  # fmt: skip
        return cls(repository, run_git(source, "rev-parse", "HEAD"), owned(sandbox, tree), index)

    @asynccontextmanager
    async def opened(self, sandbox) -> AsyncIterator[Workspace]:
        async with sandbox.open(self.tree, repository=self.repository) as workspace:
            yield workspace

    def apply(self, change: Change) -> Path:
        """Apply the patch in a clean clone, as publishing does; return the clone."""
        clone = self.tree.with_name("clone")
        run_git(self.tree.parent, "clone", "--quiet", str(self.repository), str(clone))
        subprocess.run(
            ["git", "apply", "--index", "--binary"], cwd=clone, input=change.patch, check=True
        )
        return clone


def staged(clone: Path) -> bytes:
    """Return what is staged: letters and names with a NUL after each."""
    command = ["git", "diff", "--cached", "--name-status", "-z", "-M"]
    return subprocess.run(command, cwd=clone, capture_output=True, check=True).stdout


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "source"
    (folder / "folder").mkdir(parents=True)
    (folder / "kept.txt").write_text("kept\n")
    (folder / "changed.txt").write_text("one\ntwo\nthree\n")
    (folder / "deleted.txt").write_text("deleted\n")
    (folder / "renamed.txt").write_text("".join(f"line {n}\n" for n in range(50)))
    (folder / "program").write_text("#!/bin/sh\n")
    (folder / "folder" / "image").write_bytes(bytes(range(256)))
    (folder / "link").symlink_to("kept.txt")
    return folder


@pytest.fixture
def checkout(sandbox, source, tmp_path) -> Checkout:
    return Checkout.make(sandbox, tmp_path)


async def test_nothing_changed_is_an_empty_patch(sandbox, checkout):
    async with checkout.opened(sandbox) as workspace:
        for index in (None, checkout.index):
            assert await workspace.export(checkout.commit, index) == Change(b"")


@pytest.mark.parametrize("with_index", [True, False])
async def test_every_kind_of_change_is_in_the_patch(sandbox, checkout, with_index):
    script = r"""
    set -e
    echo TWO >>changed.txt
    rm deleted.txt
    mv renamed.txt 'new name "quoted".txt'
    chmod +x program
    printf '\377\000\001' >folder/image
    rm link; ln -s /etc/passwd link
    printf 'x' >"$(printf 'new\nline')"
    printf 'x' >"$(printf 'latin-\351')"
    mkdir -p deep/er; : >deep/er/empty
    """
    async with checkout.opened(sandbox) as workspace:
        assert (await shell(workspace, script)).err == ""
        change = await workspace.export(checkout.commit, checkout.index if with_index else None)
    clone = checkout.apply(change)
    assert not change.incomplete
    status = staged(clone)
    assert status.split(b"\0")[:-1] == [
        *(b"M", b"changed.txt", b"A", b"deep/er/empty", b"D", b"deleted.txt"),
        *(b"M", b"folder/image", b"A", b"latin-\xe9", b"M", b"link", b"A", b"new\nline"),
        *(b"R100", b"renamed.txt", b'new name "quoted".txt', b"M", b"program"),
    ]
    assert (clone / "folder/image").read_bytes() == b"\xff\0\1"
    assert os.readlink(clone / "link") == "/etc/passwd"
    assert os.access(clone / "program", os.X_OK)


async def test_files_above_the_tree_or_in_git_are_not_in_the_patch(sandbox, checkout):
    async with checkout.opened(sandbox) as workspace:
        await shell(workspace, "mkdir .git; echo x >.git/config; echo x >/tmp/outside")
        assert (await workspace.export(checkout.commit)).patch == b""


async def test_nested_repositories_and_submodules_are_not_entered(sandbox, checkout):
    script = """
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
    git init -q nested && cd nested && echo x >inner && git add inner && git commit -qm x && cd ..
    git init -q folder && echo changed >folder/image
    printf '[submodule "s"]\\n\\tpath = nested\\n\\turl = ext::touch /tmp/ran\\n' >.gitmodules
    """
    async with checkout.opened(sandbox) as workspace:
        assert (await shell(workspace, script)).ended.status == 0
        change = await workspace.export(checkout.commit, checkout.index)
    assert b"Subproject" not in change.patch
    assert b"inner" not in change.patch
    clone = checkout.apply(change)
    assert (clone / "folder/image").read_text() == "changed\n"
    assert sorted(path.name for path in clone.iterdir() if path.name != ".git") == [
        ".gitmodules", "changed.txt", "deleted.txt", "folder", "kept.txt", "link", "program",
        "renamed.txt",
    ]  # fmt: skip


HOSTILE_GIT = {
    "hook": """
        git init -q .
        for hook in post-index-change pre-commit post-checkout reference-transaction; do
          printf '#!/bin/sh\\ntouch /work/RAN\\n' >.git/hooks/$hook; chmod +x .git/hooks/$hook
        done""",
    "fsmonitor": "git init -q .; git config core.fsmonitor 'touch /work/RAN;'",
    "filter": """
        git init -q .; git config filter.evil.clean 'touch /work/RAN; cat'
        git config filter.evil.process 'touch /work/RAN'
        git config diff.evil.textconv 'touch /work/RAN'
        git config diff.evil.command 'touch /work/RAN'
        printf '* filter=evil diff=evil merge=evil\\n' >.gitattributes""",
    "rewritten .git file": """
        mkdir /tmp/elsewhere; git init -q --bare /tmp/elsewhere
        git --git-dir=/tmp/elsewhere config core.fsmonitor 'touch /work/RAN;'
        git --git-dir=/tmp/elsewhere config core.worktree /work
        echo 'gitdir: /tmp/elsewhere' >.git""",
    "nested repository": """
        git init -q nested; cd nested; git config core.fsmonitor 'touch /work/RAN;'; echo x >file
        git config user.name a; git config user.email a@b
        git -c core.fsmonitor= commit -q --allow-empty -m x; cd ..""",
    "user's configuration": """
        git config --global core.fsmonitor 'touch /work/RAN;'
        git config --global core.hooksPath /work/hooks; mkdir hooks
        printf '#!/bin/sh\\ntouch /work/RAN\\n' >hooks/post-index-change; chmod +x hooks/*""",
}


@pytest.mark.parametrize("planted", HOSTILE_GIT)
async def test_what_was_planted_for_git_does_not_run(sandbox, checkout, planted):
    async with checkout.opened(sandbox) as workspace:
        await shell(workspace, f"{HOSTILE_GIT[planted]}\nrm -f RAN; echo more >>changed.txt")
        change = await workspace.export(checkout.commit, checkout.index)
        assert b"+more" in change.patch
        assert await existing(workspace, "/work/RAN") == []
        assert b"RAN" not in change.patch.replace(b"touch /work/RAN", b"")


async def test_git_has_no_network_and_cannot_write_the_tree(sandbox, checkout, monkeypatch):
    look = (
        "exec 2>&1; find /home /tmp; grep -c : /proc/net/dev; "
        "for name in work repository; do touch /$name/x || echo refused; done; false"
    )
    monkeypatch.setattr(export, "SCRIPT", look)
    async with checkout.opened(sandbox) as workspace:
        await shell(workspace, "touch ~/secret /tmp/secret")
        with pytest.raises(ExportFailed):
            await workspace.export(checkout.commit)
        monkeypatch.setattr(export, "SCRIPT", f"{look}; exit 0")
        seen = (await workspace.export(checkout.commit)).patch.decode()
    assert "secret" not in seen
    assert seen.splitlines().count("refused") == 2
    assert "\n1\n" in seen  # the loopback interface alone


async def test_a_link_to_a_folder_is_not_followed(sandbox, checkout):
    async with checkout.opened(sandbox) as workspace:
        await shell(workspace, "rm -r folder; ln -s /etc folder; ln -s /repository stolen")
        clone = checkout.apply(await workspace.export(checkout.commit, checkout.index))
    assert (clone / "folder").is_symlink()
    assert (clone / "stolen").is_symlink()


async def test_files_that_are_not_files_are_left_out(sandbox, checkout):
    script = (
        "mkfifo fifo; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'"
    )
    async with checkout.opened(sandbox) as workspace:
        await shell(workspace, script)
        assert (await workspace.export(checkout.commit, checkout.index)).patch == b""


async def test_a_file_that_cannot_be_read_is_reported_as_missing(sandbox, checkout):
    async with checkout.opened(sandbox) as workspace:
        await shell(workspace, "echo x >closed; chmod 000 closed; echo y >open")
        change = await workspace.export(checkout.commit, checkout.index)
    assert change.incomplete
    assert b"+y" in change.patch
    assert b"closed" not in change.patch


async def test_a_tree_and_a_home_that_are_locked_cannot_be_exported(sandbox, checkout):
    async with checkout.opened(sandbox) as workspace:
        await shell(workspace, 'echo a > new; chmod 0 . "$HOME" /tmp')
        with pytest.raises(ExportFailed):
            await workspace.export(checkout.commit, index=checkout.index)
        with suppress(ExportFailed):  # in some sandboxes the lock does not matter
            await workspace.save_home((".x",))


async def test_a_file_that_is_not_in_its_encoding_is_kept_as_it_is(sandbox, source, tmp_path):
    (source / ".gitattributes").write_text("*.ps1 text working-tree-encoding=UTF-16\n")
    (source / "old.ps1").write_bytes("one\n".encode("utf-16"))
    checkout = Checkout.make(sandbox, tmp_path)
    async with checkout.opened(sandbox) as workspace:
        script = "printf 'odd\\n' | tee new.ps1 >-x.ps1; rm deleted.txt; echo more >>changed.txt"
        odd = "echo x >closed; chmod 000 closed; rm kept.txt; mkfifo kept.txt"
        await shell(workspace, f"{script}; {odd}; chmod +x new.ps1")
        change = await workspace.export(checkout.commit, checkout.index)
    assert change.incomplete
    clone = checkout.apply(change)
    # In gVisor a pipe disappears with its command, so the file that it replaced is deleted there.
    gone = (b"D", b"kept.txt") if isinstance(sandbox, GVisor) else ()
    assert staged(clone).split(b"\0")[:-1] == [
        *(b"A", b"-x.ps1", b"M", b"changed.txt", b"D", b"deleted.txt", *gone, b"A", b"new.ps1")
    ]
    assert run_git(clone, "cat-file", "blob", ":new.ps1") == "odd"


async def test_an_export_without_room_fails(sandbox, checkout):
    small = Storage(tree_bytes=3_000_000)
    opened = sandbox.open(checkout.tree, repository=checkout.repository, storage=small)
    async with opened as workspace:
        await shell(workspace, "for n in 1 2; do head -c 1490000 /dev/urandom >big$n; done")
        with pytest.raises(ExportFailed, match="No space left"):
            await workspace.export(checkout.commit)


async def test_a_patch_that_is_too_large_is_refused(sandbox, checkout):
    async with checkout.opened(sandbox) as workspace:
        await shell(workspace, "head -c 3000000 /dev/urandom >big")
        with pytest.raises(TooBig):
            await workspace.export(checkout.commit, most_bytes=100_000)
        assert len((await workspace.export(checkout.commit)).patch) > 3_000_000


async def test_a_commit_that_is_not_there_fails_with_gits_words(sandbox, checkout):
    async with checkout.opened(sandbox) as workspace:
        with pytest.raises(ExportFailed, match="could not make a patch: fatal"):
            await workspace.export("0" * 40)


async def test_a_commit_that_looks_like_an_option_is_refused(sandbox, checkout):
    async with checkout.opened(sandbox) as workspace:
        for commit in ("--output=/work/x", "HEAD", "main", "4b825dc"):
            with pytest.raises(ExportFailed, match="not a commit"):
                await workspace.export(commit)


async def test_without_a_repository_there_is_no_export(workspace):
    with pytest.raises(ExportFailed, match="without a repository"):
        await workspace.export("0" * 40)


@pytest.mark.parametrize("with_commit", [True, False])
async def test_an_empty_repository_takes_its_first_files(sandbox, tmp_path, with_commit):
    (tmp_path / "source").mkdir()
    checkout = Checkout.make(sandbox, tmp_path)
    async with checkout.opened(sandbox) as workspace:
        await shell(workspace, "echo first >README.md")
        change = await workspace.export(checkout.commit if with_commit else "")
    assert (checkout.apply(change) / "README.md").read_text() == "first\n"


async def test_a_submodule_and_a_pointer_stay_as_they_are(sandbox, source, tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (source / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (source / "large.bin").write_text(pointer)
    run_git(source, "init", "--quiet")
    run_git(source, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    (source / "module").mkdir()
    checkout = Checkout.make(sandbox, tmp_path)
    async with checkout.opened(sandbox) as workspace:
        assert (await workspace.export(checkout.commit, checkout.index)).patch == b""
        await shell(workspace, "mkdir -p module; echo in >module/file; echo more >>kept.txt")
        change = await workspace.export(checkout.commit, checkout.index)
    assert change.patch.count(b"diff --git") == 1
    assert b"module" not in change.patch


async def test_the_home_is_saved_and_restored(sandbox):
    async with sandbox.open(None) as workspace:
        script = "mkdir -p .claude/x; echo session >.claude/x/y; ln -s /etc/passwd .claude/l"
        await shell(workspace, f"cd; {script}; echo other >other")
        archive = await workspace.save_home((".claude", ".missing", "-dash"))
        assert await workspace.save_home((".missing",)) == b""
    async with sandbox.open(None) as workspace:
        await workspace.restore_home(archive)
        assert (await shell(workspace, "cd; cat .claude/x/y; readlink .claude/l; ls")).out == (
            "session\n/etc/passwd"
        )
        await workspace.restore_home(b"")


async def test_a_file_with_holes_is_restored_with_its_holes(sandbox):
    if isinstance(sandbox, GVisor):
        pytest.skip("gVisor does not say where a file has holes")
    async with sandbox.open(None) as workspace:
        await shell(workspace, "truncate -s 600M ~/sparse; echo session >~/session")
        archive = await workspace.save_home(("sparse", "session"))
    async with sandbox.open(None) as workspace:
        await workspace.restore_home(archive)
        assert (await shell(workspace, "cat ~/session; stat -c %s ~/sparse")).out == (
            "session\n629145600"
        )


async def test_a_file_of_the_home_that_cannot_be_read_is_left_out(sandbox):
    async with sandbox.open(None) as workspace:
        script = (
            "cd; mkdir -p .c/shut; echo x >.c/file; echo y >.c/closed; chmod 000 .c/shut .c/cl*"
        )
        await shell(workspace, script)
        archive = await workspace.save_home((".c",))
    async with sandbox.open(None) as workspace:
        await workspace.restore_home(archive)
        assert (await shell(workspace, "cat ~/.c/file")).out == "x"


async def test_a_home_that_is_too_large_is_refused(workspace):
    await shell(workspace, "head -c 1000000 /dev/urandom >~/big")
    with pytest.raises(TooBig):
        await workspace.save_home(("big",), most_bytes=100_000)


@pytest.mark.parametrize("path", ["../work", "/etc", "a/../../b"])
async def test_only_paths_of_the_home_are_saved(workspace, path):
    with pytest.raises(ExportFailed, match="not a path below"):
        await workspace.save_home((path,))


async def test_an_invalid_archive_fails(workspace):
    with pytest.raises(ExportFailed, match="cannot be restored"):
        await workspace.restore_home(b"not an archive")


async def test_a_hostile_archive_reaches_nothing_but_the_home(workspace):
    archive = "tar -czPf - ../escaped /work/escaped"
    script = f"cd /tmp; mkdir d; echo x | tee escaped /work/escaped; cd d; {archive} | base64 -w0"
    made = b64decode((await shell(workspace, script)).out.removeprefix("x\n"))
    await shell(workspace, "rm -r /tmp/d /tmp/escaped /work/escaped")
    with pytest.raises(ExportFailed, match="Member name contains"):
        await workspace.restore_home(made)
    found = (await shell(workspace, "find /tmp /work ~ -name escaped")).out
    assert found == "/home/agent/work/escaped"


async def test_an_archive_that_unpacks_beyond_the_home_fails(sandbox):
    small = Storage(home_bytes=1_000_000)
    async with sandbox.open(None) as workspace:
        await shell(workspace, "head -c 50000000 /dev/zero >~/bomb")
        archive = await workspace.save_home(("bomb",))
    assert len(archive) < 100_000
    async with sandbox.open(None, storage=small) as workspace:
        with pytest.raises(ExportFailed, match="cannot be restored"):
            await workspace.restore_home(archive)


def told(lines: bytes) -> dict[str, bytes | None]:
    """Return the files that a folder has, by name; None if the content is left out."""
    found = map(json.loads, lines.splitlines())
    return {
        each["name"]: None if each.get("left_out") else b64decode(each["content"]) for each in found
    }


async def test_a_folder_of_the_home_is_read(sandbox):
    async with sandbox.open(None) as workspace:
        assert await workspace.read_folder("output", 10, 1_000) == b""
        script = "mkdir -p output/folder; cd output; echo one >a; printf x >'b\n..'; : >empty"
        await shell(workspace, f"cd; {script}; echo deep >folder/c")
        read = await workspace.read_folder("output", 10, 1_000)
    assert told(read) == {"a": b"one\n", "b\n..": b"x", "empty": b""}


async def test_links_and_pipes_are_not_read(sandbox):
    async with sandbox.open(None) as workspace:
        script = "mkdir output; cd output; ln -s /etc/passwd link; mkfifo pipe; echo x >a"
        await shell(workspace, f"cd; {script}; echo y >shut; chmod 000 shut")
        read = told(await workspace.read_folder("output", 10, 1_000))
        assert read.pop("shut", b"y\n") == b"y\n", "in some sandboxes the lock does not matter"
        assert read == {"a": b"x\n"}
        await shell(workspace, "cd; rm -rf output; ln -s /etc output")
        assert await workspace.read_folder("output", 10, 1_000) == b""


async def test_a_folder_is_read_up_to_its_bounds(sandbox):
    async with sandbox.open(None) as workspace:
        script = "mkdir output; cd output; truncate -s 200M a; for n in 1 2 3 4; do echo $n >b$n"
        await shell(workspace, f"cd; {script}; done")
        few = told(await workspace.read_folder("output", 2, 1_000))
        small = told(await workspace.read_folder("output", 9, 5))
    assert few == {"a": None, "b1": b"1\n", "b2": b"2\n", "b3": None}
    assert small == {"a": None, "b1": b"1\n", "b2": b"2\n", "b3": None, "b4": None}
