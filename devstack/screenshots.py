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


def become(*arguments: str, **environment: str) -> None:
    """Install the packages that drive a browser, and become pytest with these arguments."""
    if browser() is None:
        sys.exit("tollgate: Chromium is missing. On Debian: sudo apt install chromium")
    try:
        install(LOCK, shutil.which("uv"))
    except LaunchError as error:
        sys.exit(f"tollgate: {error}")
    command = [str(PYTHON), "-m", "pytest", "-n", "0", "-q", *arguments]
    os.execve(PYTHON, command, os.environ | environment)


if __name__ == "__main__":
    become("tests/console/test_in_browser.py", SCREENSHOTS=str(DIRECTORY))
