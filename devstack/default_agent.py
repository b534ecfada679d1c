"""The agent of the stack's projects: one that changes code, if this machine has a sandbox."""

import subprocess
import sys
from collections.abc import Callable, Mapping

CHANGES_CODE = "small"
READS = "reader"
_PROBE = [sys.executable, "-m", "coding_tasks.sandbox"]
_WITHIN = 60  # seconds


def default_agent(environ: Mapping[str, str], say: Callable[[str], None]) -> str:
    """Return the agent that the environment asks for, or else the best one for this machine."""
    if chosen := environ.get("DEFAULT_AGENT"):
        return chosen
    try:
        tried = subprocess.run(
            _PROBE,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_WITHIN,
        )
    except subprocess.TimeoutExpired:
        say("the bot only reads, because trying a sandbox took too long")
        return READS
    if tried.returncode == 0:
        return CHANGES_CODE
    reason = (tried.stdout.strip() or tried.stderr.strip()).rpartition("\n")[2]
    say(f"the bot only reads, because agents cannot run here: {reason}")
    return READS
