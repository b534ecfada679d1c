"""`.devstack/env`: the settings that other commands need to work on the running stack.

It has `KEY=value` lines, quoted for a shell. Only the owner can read it, because it holds secrets.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path

from devstack.private_file import write_private


def read_env_file(path: Path) -> dict[str, str]:
    """Return the file's values, or {} if there is no file."""
    if not path.is_file():
        return {}
    values = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values[name] = "".join(shlex.split(value))
    return values


def write_env_file(path: Path, values: Mapping[str, str]) -> None:
    """Write the values, sorted by name."""
    lines = (f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items()))
    write_private(path, "".join(lines))
