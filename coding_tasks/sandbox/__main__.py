"""`python -m coding_tasks.sandbox`: say why agents cannot run on this machine, if they cannot."""

import sys

from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap


def main() -> int:
    """Return 0 if a sandbox works here. Otherwise print the reason and return 1."""
    reason = Bubblewrap().why_missing()
    if reason is not None:
        sys.stdout.write(f"{reason}\n")
    return int(reason is not None)


if __name__ == "__main__":
    sys.exit(main())
