"""Run `manage.py` commands as an operator does, but in one process, which starts only once.

Each line of the input is a JSON list, the arguments of a command. Each line of the output is a JSON
list: the exit status, and what the command printed.
"""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout

from django.core.management import execute_from_command_line


def run(arguments: list[str]) -> tuple[int, str]:
    """Run a command as `manage.py` does; return its exit status and output."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            execute_from_command_line(["manage.py", *arguments])
        except SystemExit as end:
            return int(end.code or 0), printed.getvalue()
    return 0, printed.getvalue()


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(f"{json.dumps(run(json.loads(line)))}\n")
        sys.stdout.flush()
