"""The number of examples in property tests: few in the suite, many in `make soak`."""

import os

_TIMES = int(os.environ.get("TEST_EXAMPLES_TIMES", "1"))


def examples(usual: int) -> int:
    """Return the number of examples for a test that usually takes `usual`."""
    return usual * _TIMES
