"""Removing folders that are hard to remove."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coding_tasks.repositories.trees import measure_tree, remove_tree
from tests.deep_folders import nest

DEEP = 1_500
LONGER_THAN_ANY_PATH = 20
NOBODY = 65_534


@pytest.mark.parametrize(
    ("depth", "name"),
    [(DEEP, "d"), (LONGER_THAN_ANY_PATH, "n" * 255), (3, "new\nline"), (3, "caf\udce9")],
)
def test_a_tree_deeper_than_the_stack_and_than_any_path_is_removed(tmp_path, depth, name):
    nest(tmp_path / "tree", depth, name)
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_very_many_entries_and_folders_is_removed(tmp_path):
    for number in range(60):
        folder = tmp_path / "tree" / str(number) / "inner" / "innermost"
        folder.mkdir(parents=True)
        for file in range(10):
            (folder / str(file)).touch()
    remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_what_a_tree_links_to_stays(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o750)
    (outside / "file").write_text("precious")
    inner = tmp_path / "tree" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner.parent, inner):
        (folder / "folder").symlink_to(outside)
        (folder / "file").symlink_to(outside / "file")
        os.link(outside / "file", folder / "hard")
    remove_tree(tmp_path / "tree")
    assert (outside / "file").read_text() == "precious"
    assert outside.stat().st_mode & 0o777 == 0o750
    assert not (tmp_path / "tree").exists()


def test_a_link_in_the_place_of_a_tree_is_refused(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (tmp_path / "tree").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError):
        remove_tree(tmp_path / "tree")
    assert (tmp_path / "outside" / "file").exists()


def test_removing_a_missing_tree_is_no_error(tmp_path):
    remove_tree(tmp_path / "tree")


AS_NOBODY = """
import os, sys
from pathlib import Path
from coding_tasks.repositories.trees import remove_tree
os.setgroups([]); os.setgid({id}); os.setuid({id})
root = Path(sys.argv[1])
{make}
try:
    remove_tree(root)
except OSError as error:
    print(type(error).__name__)
print(sorted(path.name for path in root.parent.iterdir()))
"""


def as_nobody(root: Path, make: str) -> str:
    """Run as a user to whom permissions apply."""
    code = AS_NOBODY.format(id=NOBODY, make=make)
    ran = subprocess.run(
        [sys.executable, "-c", code, root], check=True, capture_output=True, text=True
    )
    return ran.stdout.strip()


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o711)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    return shared


@pytest.mark.parametrize("mode", ["0o000", "0o400", "0o100", "0o555"])
def test_folders_without_permissions_are_removed(open_to_all, mode):
    make = f"""
(root / "a" / "b" / "c").mkdir(parents=True)
(root / "a" / "b" / "file").touch()
for folder in (root / "a" / "b" / "c", root / "a" / "b", root / "a", root):
    folder.chmod({mode})
"""
    assert as_nobody(open_to_all / "tree", make) == "[]"


def test_another_users_files_are_reported_and_the_rest_is_removed(open_to_all):
    tree = open_to_all / "tree"
    (tree / "theirs").mkdir(parents=True)
    (tree / "theirs" / "file").touch()
    (tree / "ours").mkdir()
    os.chown(tree, NOBODY, NOBODY)
    os.chown(tree / "ours", NOBODY, NOBODY)
    assert as_nobody(tree, "") == "PermissionError\n['tree']"
    assert [path.name for path in tree.iterdir()] == ["theirs"]


def test_measuring_counts_everything_and_stops_at_the_bound(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("x" * 100)
    for number in range(5):
        (tmp_path / str(number)).touch()
    assert measure_tree(tmp_path, most_entries=100).entries == 8
    assert measure_tree(tmp_path, most_entries=100).size >= 5
    assert measure_tree(tmp_path, most_entries=3).entries == 4
