"""`make mutations`: make each mistake in a copy of the project and see that its test fails."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.mutations.catalogue import MUTATIONS, ROOT

COPIED_NOT = shutil.ignore_patterns(".git", ".venv", ".devstack", "__pycache__", ".*_cache")


def main() -> int:
    """Print how each went; return 1 if a mistake stayed unnoticed."""
    unnoticed = 0
    for mutation in MUTATIONS:
        with tempfile.TemporaryDirectory(prefix="tollgate-mutation-") as scratch:
            copy = Path(scratch) / "tollgate"
            shutil.copytree(ROOT, copy, ignore=COPIED_NOT)
            mutation.apply(copy)
            status = _test(copy, mutation.test)
        noticed = status == 1  # 0 is passed; anything above 1 is no verdict
        unnoticed += not noticed
        outcome = "noticed" if noticed else f"NOT NOTICED (pytest: {status})"
        line = f"{mutation.number:>2}  {outcome}: {mutation.says}"
        sys.stdout.write(f"{line}\n      {mutation.test}\n")
        sys.stdout.flush()
    return 1 if unnoticed else 0


def _test(copy: Path, test: str) -> int:
    """Run one test in the copy, in a process of its own; return pytest's exit status."""
    command = [sys.executable, "-m", "pytest", "--quiet", "--numprocesses", "0", test]
    return subprocess.run(command, cwd=copy, capture_output=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
