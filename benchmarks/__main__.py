"""`make bench`: run every benchmark of this folder, or those named on the command line.

Each benchmark is a module that also runs alone (`python -m benchmarks.NAME`) and prints its table.
At the end, one table shows all figures.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.load.table import HEAD

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    """Run the benchmarks one after another, never side by side; return 1 if any failed."""
    known = sorted(path.stem for path in HERE.glob("[a-z]*.py"))
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no benchmark called {', '.join(unknown)}; there are: {', '.join(known)}")
        return 2
    failed = []
    figures: list[str] = []
    for name in names or known:
        print(f"\n== {name}", flush=True)
        status, rows = run(name)
        figures += rows
        if status:
            failed.append(name)
    print("\n== all figures")
    print("\n".join([*HEAD, *figures]))
    if failed:
        print(f"\nmissed a target, or failed: {', '.join(failed)}")
    return 1 if failed else 0


def run(name: str) -> tuple[int, list[str]]:
    """Run a benchmark and show its output; return its exit status and the rows of its table."""
    command = [sys.executable, "-u", "-m", f"benchmarks.{name}"]
    rows: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it is piped"
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("| ") and line.rstrip() not in HEAD:
                rows.append(line.rstrip())
    return process.returncode, rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
