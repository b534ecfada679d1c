"""What the launcher is told: see `coding_tasks.sandbox.launcher`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from coding_tasks.sandbox import launcher

PROGRAM = Path(launcher.__file__).read_text()


def encode(
    command: Sequence[str],
    environment: Mapping[str, str],
    compiled: bytes,
    *,
    uid: int = 0,
    door: tuple[int, str] = (0, ""),
) -> bytes:
    """Return what the launcher reads. No part must contain a NUL.

    `compiled` is the filter for system calls. `uid` is the user for root to become, or 0 to stay
    the same user. `door` is a port on 127.0.0.1 and the path of the Unix socket to which it leads,
    or port 0 for no door.
    """
    port, path = door
    variables = [f"{name}={value}" for name, value in environment.items()]
    fields = [str(uid), str(port), path, compiled.hex(), str(len(variables)), *variables, *command]
    body = b"\0".join(map(os.fsencode, fields))
    return b"%0*d%b" % (launcher.LENGTH_DIGITS, len(body), body)
