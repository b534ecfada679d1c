"""What only Linux offers against orphans. Elsewhere these calls do nothing."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def signal_when_parent_dies(number: signal.Signals) -> None:
    """Let the kernel send this process the signal as soon as its parent is gone.

    "Parent" is the thread that forked. The setting survives `exec`, and is not inherited.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
