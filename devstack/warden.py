"""Kill the process groups of a supervisor that died without stopping them.

The kernel ends the supervisor's children with it (see `devstack.child`), but not the children's
own: web server workers, git, sandboxes. The supervisor writes `+GROUP` for each process group it
starts and `-GROUP` when that has ended; the end of this input is the supervisor's end.
"""

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Follow the groups until the supervisor is gone, then kill those that are left."""
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(group)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
