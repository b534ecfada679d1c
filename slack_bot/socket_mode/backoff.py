"""How long to wait before the next attempt to connect."""

import random

FIRST = 1.0
LONGEST = 60.0
LONGEST_AFTER_REFUSAL = 300.0
"""Seconds. A refusal lasts until somebody changes the token or the app's settings."""
FAILURES_KNOWN = 30


def delay(failures: int, *, is_refusal: bool = False, retry_after: int | None = None) -> float:
    """Return the seconds to wait after this many failures in a row, and at least `retry_after`.

    Half of the time is random, so that processes that lost their connections together do not all
    reconnect at once.
    """
    longest = LONGEST_AFTER_REFUSAL if is_refusal else LONGEST
    first = 10 * FIRST if is_refusal else FIRST
    most = min(first * 2 ** min(failures, FAILURES_KNOWN), longest)
    return max(random.uniform(most / 2, most), (retry_after or 0) * random.uniform(1, 1.2))  # noqa: S311
