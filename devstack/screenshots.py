"""Take the pictures of the docs again: `make screenshots`.

This installs the locked packages that drive a browser, and runs the browser tests, which then save
their screenshots in `docs/screenshots/`.
"""

import os
import shutil
import sys

from devstack.launch import PYTHON, ROOT, LaunchError, install

LOCK = ROOT / "requirements-screenshots.lock"
DIRECTORY = ROOT / "docs" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def browser() -> str | None:
    """Return the path of the machine's Chromium, if it has one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def main() -> None:
    """Replace this process by the test run that takes the pictures."""
    if browser() is None:
        sys.exit("tollgate: Chromium is missing. On Debian: sudo apt install chromium")
    try:
        install(LOCK, shutil.which("uv"))
    except LaunchError as error:
        sys.exit(f"tollgate: {error}")
    environment = os.environ | {"SCREENSHOTS": str(DIRECTORY)}
    command = [str(PYTHON), "-m", "pytest", "-n", "0", "-q", "tests/config/test_in_browser.py"]
    os.execve(PYTHON, command, environment)


if __name__ == "__main__":
    main()
