"""What runs in a sandbox, and where things are inside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

TREE_INSIDE = "/work"
"""The repository's tree, and the working directory of every command."""
HOME_INSIDE = "/home/agent"
"""The home, which is kept between commands like the tree."""
INPUT_INSIDE = "/input"
"""The files that came with the request, read-only. The folder is missing if there are none."""
OUTPUT_NAME = "output"
OUTPUT_INSIDE = f"{HOME_INSIDE}/{OUTPUT_NAME}"
"""Where an agent leaves files for people. It makes the folder itself."""
PYTHON_INSIDE = "/opt/python/bin/python3"
"""The worker's own Python without its packages. The system's may be older, or missing."""
GATEWAY_PORT_INSIDE = 8010
"""The port on 127.0.0.1 where a command with a door reaches the gateway."""
GATEWAY_INSIDE = f"http://127.0.0.1:{GATEWAY_PORT_INSIDE}"


@dataclass(frozen=True)
class Command:
    """A program and its arguments, as seen from inside. The environment is all that it gets."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    """Holds the run's token, so it is left out of logs."""
    stdin: bytes = field(default=b"", repr=False)
    """Sent to the program, then its standard input is closed."""
