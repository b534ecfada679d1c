"""Kill the process groups of a supervisor that died without stopping them.

The kernel ends the supervisor's children with it (see `supervision.child`), but not their children:
web server workers, git, sandboxes. The supervisor writes `+GROUP` to this process for each process
group that it starts, and `-GROUP` when that group has ended. When the input ends, the supervisor is
gone.
"""

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Follow the groups until the supervisor is gone, then kill the remaining ones."""
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(group)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
