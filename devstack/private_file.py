"""Files that hold secrets: only their owner can read them, and nobody sees them half-written."""

import os
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Replace the file's content; a reader sees either the old file or the new one."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
