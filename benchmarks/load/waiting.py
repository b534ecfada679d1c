"""Waiting for what other processes do."""

import time
from collections.abc import Callable


def wait_for(find: Callable[[], object], what: str, within: float) -> None:
    """Poll until something is there. Raises `TimeoutError` after `within` seconds."""
    deadline = time.monotonic() + within
    while not find():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.05)
