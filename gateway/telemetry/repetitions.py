"""One line a minute for an error that repeats, instead of one for each attempt."""

import sys
import time
from collections.abc import Callable

import structlog

QUIET_SECONDS = 60.0
MOST_REMEMBERED = 1_000
_STORE = ("MISCONF", "OOM", "LOADING", "READONLY", "NOREPLICAS")
"""How Redis begins refusals that are no bugs of ours: more room or a setting ends them."""
_REPEATABLE = frozenset({"warning", "error", "exception", "critical"})


class OncePerMinute:
    """A processor that leaves out lines with the same event and the same error for a minute.

    Lines without an error, such as an event that was set aside, are all written.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet: dict[tuple[str, str], tuple[float, int]] = {}

    def __call__(
        self, _logger: object, method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        """Return the event, with `left_out` if lines before it were; or raise `DropEvent`."""
        error = _error_of(event)
        if method not in _REPEATABLE or not error:
            return event
        if error.startswith(_STORE):
            event["error"] = error
            event.pop("exc_info", None)
        key = (str(event["event"]), error.partition(" ")[0])
        now = self._clock()
        until, left_out = self._quiet.get(key, (now, 0))
        if now < until:
            self._quiet[key] = until, left_out + 1
            raise structlog.DropEvent
        if len(self._quiet) >= MOST_REMEMBERED:
            self._quiet.clear()
        self._quiet[key] = now + QUIET_SECONDS, 0
        if left_out:
            event["left_out"] = left_out
        return event


def _error_of(event: structlog.types.EventDict) -> str:
    """Return what a line reports in one line, beginning with what kind of error it is."""
    raised = event.get("exc_info")
    if raised is True:
        raised = sys.exc_info()[1]
    elif isinstance(raised, tuple):
        raised = raised[1]
    if isinstance(raised, BaseException):
        said = str(raised)
        return said if said.startswith(_STORE) else f"{type(raised).__name__}: {said}"
    return str(event.get("error") or "")
