"""How many examples the property tests take: few in the suite, many in `make soak`."""

import os

_TIMES = int(os.environ.get("TEST_EXAMPLES_TIMES", "1"))


def examples(usual: int) -> int:
    """Return how many to take where the suite takes so many."""
    return usual * _TIMES
