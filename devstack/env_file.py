"""`.devstack/env`: the values with which any other command works on the running stack.

`KEY=value` lines, quoted as a shell reads them; readable by the owner alone, for it holds secrets.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path


def read_env_file(path: Path) -> dict[str, str]:
    """Return the file's values; nothing when there is no file."""
    if not path.is_file():
        return {}
    values = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values[name] = "".join(shlex.split(value))
    return values


def write_env_file(path: Path, values: Mapping[str, str]) -> None:
    """Write the values so that a reader sees either the old file or the new one."""
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items()))
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
