"""Folders nested deeper than a path can name."""

import os
from pathlib import Path


def nest(root: Path, depth: int, name: str) -> None:
    """Create nested folders, each with a file, a link and a FIFO, deeper than paths can be long."""
    root.mkdir()
    folder = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
        os.symlink("/", "link", dir_fd=folder)
        os.mkfifo("fifo", dir_fd=folder)
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
