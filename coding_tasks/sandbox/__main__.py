"""`python -m coding_tasks.sandbox`: say why agents cannot run on this machine, if they cannot."""

import sys

from environs import EnvError

from coding_tasks.sandbox import choice


def main() -> int:
    """Return 0 if the chosen sandbox works here. Otherwise print the reason and return 1."""
    try:
        reason = choice.from_environment().sandbox().why_missing()
    except EnvError as error:
        reason = str(error)
    if reason is not None:
        sys.stdout.write(f"{reason}\n")
    return int(reason is not None)


if __name__ == "__main__":
    sys.exit(main())
