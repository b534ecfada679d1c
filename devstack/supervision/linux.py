"""Linux's protection against orphaned processes. Elsewhere these calls do nothing."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def signal_when_parent_dies(number: signal.Signals) -> None:
    """Ask the kernel to send this process the signal when its parent dies.

    "Parent" is the thread that forked. The setting survives `exec`, and is not inherited.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
