"""Make each mistake of the catalogue in a copy of the project and see that its test fails."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.mutations.catalogue import MUTATIONS
from tests.mutations.copies import copy_to


def unnoticed() -> int:
    """Print how each went; return how many mistakes stayed unnoticed."""
    count = 0
    for mutation in MUTATIONS:
        with tempfile.TemporaryDirectory(prefix="tollgate-mutation-") as scratch:
            copy = copy_to(Path(scratch))
            mutation.apply(copy)
            status = _test(copy, mutation.test)
        noticed = status == 1  # 0 is passed; anything above 1 is no verdict
        count += not noticed
        outcome = "noticed" if noticed else f"NOT NOTICED (pytest: {status})"
        line = f"{mutation.number:>2}  {outcome}: {mutation.says}"
        sys.stdout.write(f"{line}\n      {mutation.test}\n")
        sys.stdout.flush()
    return count


def _test(copy: Path, test: str) -> int:
    """Run one test in the copy, in a process of its own; return pytest's exit status."""
    command = [sys.executable, "-m", "pytest", "--quiet", "--numprocesses", "0", test]
    return subprocess.run(command, cwd=copy, capture_output=True, check=False).returncode
