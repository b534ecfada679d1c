"""Become a program that does not outlive the supervisor.

python -m devstack.supervision.child SUPERVISOR_PID PROGRAM [ARGUMENT…]
"""

import os
import signal
import sys

from devstack.supervision.linux import signal_when_parent_dies


def main() -> None:
    """Tie this process to the supervisor, then execute the program in its place."""
    signal_when_parent_dies(signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the supervisor is gone")
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"{sys.argv[2]}: {error.strerror}")


if __name__ == "__main__":
    main()
