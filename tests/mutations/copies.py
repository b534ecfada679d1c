"""Copies of the project, in which mistakes can be made."""

import shutil
from pathlib import Path

from tests.mutations.catalogue import ROOT

_NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", ".devstack", "__pycache__", ".*_cache")


def copy_to(directory: Path) -> Path:
    """Copy the project into a directory; return the copy's root."""
    copy = directory / "tollgate"
    shutil.copytree(ROOT, copy, ignore=_NOT_COPIED)
    return copy
