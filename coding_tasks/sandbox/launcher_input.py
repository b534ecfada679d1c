"""What the launcher is told: see `coding_tasks.sandbox.launcher`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from coding_tasks.sandbox import launcher

PROGRAM = Path(launcher.__file__).read_text()
_DIGITS = 8


def encode(
    command: Sequence[str],
    environment: Mapping[str, str],
    compiled: bytes,
    *,
    uid: int = 0,
    door: tuple[int, str] = (0, ""),
) -> bytes:
    """Return what the launcher reads. No part may hold a NUL.

    `compiled` is the filter for system calls. A `uid` above 0 is the user to become, if there is
    only root. `door` is a port on 127.0.0.1 that leads to a Unix socket, if it is above 0.
    """
    port, path = door
    variables = [f"{name}={value}" for name, value in environment.items()]
    fields = [str(uid), str(port), path, compiled.hex(), str(len(variables)), *variables, *command]
    body = b"\0".join(map(os.fsencode, fields))
    return b"%0*d%b" % (_DIGITS, len(body), body)
