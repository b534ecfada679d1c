"""Every check that doesn't run the product: `python -m devstack.lint`.

All checks run even if one fails. The exit status is 1 if any failed.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from devstack.settings import ROOT

BIN = Path(sys.executable).parent
MANAGE = [sys.executable, "manage.py"]
CHECKS: dict[str, list[str]] = {
    "format": [str(BIN / "ruff"), "format", "--check", "."],
    "rules": [str(BIN / "ruff"), "check", "."],
    "types": [str(BIN / "mypy"), "."],
    "import contracts": [str(BIN / "lint-imports")],
    "migrations": [*MANAGE, "makemigrations", "--check", "--dry-run"],
    "API schema": [*MANAGE, "spectacular", "--fail-on-warn", "--validate", "--file", os.devnull],
}


def main() -> int:
    """Run every check, print one line for each, and show the output of those that failed."""
    failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {
            "SECRET_KEY": "lint",
            "DATABASE_URL": f"sqlite:///{scratch}/lint.sqlite3",
        }
        for name, command in CHECKS.items():
            began = time.monotonic()
            ran = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )
            outcome = "ok" if ran.returncode == 0 else "FAILED"
            print(f"{name:<18}{outcome:<8}{time.monotonic() - began:5.1f} s", flush=True)
            if ran.returncode:
                failures += 1
                print(ran.stdout + ran.stderr, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
