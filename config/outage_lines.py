"""Outages in the log: one line a minute for each cause, instead of a traceback for each attempt.

An unavailable store is not a bug: the work is repeated, and probes and metrics show the outage. A
full disk needs an operator, so it stays an error.
"""

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import django.db
import kombu.exceptions
import redis

QUIET_SECONDS = 60.0
"""For how long an outage is not logged again."""

FULL = "full disk or memory"
_FULL = re.compile(
    # the operating system and PostgreSQL, SQLite, Redis whose disk or memory is full
    r"No space left on device|Disk quota exceeded|disk is full|\bMISCONF\b"
    r"|command not allowed when used memory",
    re.IGNORECASE,
)
_DATABASE = (django.db.OperationalError, django.db.InterfaceError)
_REDIS = (
    redis.ConnectionError,  # also while it loads its data
    redis.TimeoutError,
    kombu.exceptions.OperationalError,
)
_NETWORK = (ConnectionError, TimeoutError)
_NAMED = re.compile(
    r"(?P<database>OperationalError|InterfaceError)\b|\w*(ConnectionError|TimeoutError)\b"
)
"""The beginning of an error in one line, as structured events have it."""
_TEMPORAL = frozenset({"temporal is unavailable", "waiting for Temporal"})


def tone_down(record: logging.LogRecord) -> bool:
    """Return whether to write a record, and turn outages into lines without a traceback.

    Celery logs an error at each attempt to reach its broker, and beat logs a traceback.

    The SDK's record of a failed activity is dropped, because `workflows.temporal.interceptors`
    logs it too.
    """
    if hasattr(record, "outage"):
        return True  # another handler's filter was here
    if getattr(record, "__temporal_error_identifier", None) == "ActivityFailure":
        return False
    if record.name == "py.warnings" and "CPendingDeprecationWarning" in record.getMessage():
        return False  # Celery warns each time it loses the broker
    outage, error = _outage(record)
    record.__dict__["outage"] = outage
    if outage is None:
        return True
    if outage == FULL:
        record.levelno, record.levelname = logging.ERROR, "ERROR"
    else:
        record.levelno, record.levelname = min(
            (record.levelno, record.levelname), (logging.WARNING, "WARNING")
        )
    said: Any = record.msg
    if isinstance(said, dict):
        said = {**said, "level": record.levelname.lower()}
        if said.pop("exc_info", None) and error is not None:
            said["error"] = f"{type(error).__name__}: {error}"
        record.msg = said
    elif record.exc_info:
        first_line = record.getMessage().partition("\n")[0]
        record.msg, record.args = f"{first_line}: {type(error).__name__}: {error}", ()
    record.exc_info = record.exc_text = None
    return True


class OncePerMinute(logging.Filter):
    """Lets one line a minute through for each outage. It says how many lines were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._quiet: dict[str, tuple[float, int]] = {}
        """For each cause, until when it is not logged again, and how many lines were left out."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write the record. All handlers decide the same about a record."""
        outage: str | None = getattr(record, "outage", None)
        if outage is None:
            return True
        written: bool | None = getattr(record, "is_written", None)
        if written is None:
            written = record.__dict__["is_written"] = self._is_due(outage, record)
        return written

    def _is_due(self, outage: str, record: logging.LogRecord) -> bool:
        now = self._clock()
        with self._lock:
            until, left_out = self._quiet.get(outage, (now, 0))
            if now < until:
                self._quiet[outage] = until, left_out + 1
                return False
            self._quiet[outage] = now + QUIET_SECONDS, 0
        said: Any = record.msg
        if left_out and isinstance(said, dict):
            said["left_out"] = left_out
        elif left_out:
            text = record.getMessage()
            record.msg, record.args = f"{text} ({left_out} lines like this were left out)", ()
        return True


def _outage(record: logging.LogRecord) -> tuple[str | None, BaseException | None]:
    """Return what is unavailable (None if nothing is) and the exception that says so."""
    for error in _errors(record):
        for types, cause in ((_DATABASE, "database"), (_REDIS, "redis"), (_NETWORK, "network")):
            if isinstance(error, types):
                return (FULL if _FULL.search(str(error)) else cause), error
        if isinstance(error, OSError | redis.ResponseError) and _FULL.search(str(error)):
            return FULL, error
    if record.name == "django.request" and getattr(record, "status_code", 0) == 503:
        return "requests refused", None
    said: Any = record.msg
    if not isinstance(said, dict) or record.levelno < logging.WARNING:
        return None, None
    if said.get("event") in _TEMPORAL:
        return "temporal", None
    text = said.get("error")
    if isinstance(text, str) and (named := _NAMED.match(text)):
        cause = "database" if named["database"] else "network"
        return (FULL if _FULL.search(text) else cause), None
    return None, None


def _errors(record: logging.LogRecord) -> Iterator[BaseException]:
    """Yield the exceptions that a record is about."""
    said: Any = record.msg
    raised: Any = said.get("exc_info") if isinstance(said, dict) else record.exc_info
    if raised is True:
        raised = sys.exc_info()
    if isinstance(raised, tuple):
        raised = raised[1]
    candidates: list[Any] = [raised]
    if record.name == "celery.beat" and isinstance(raised, BaseException):  # it wraps the original
        candidates.append(raised.__cause__ or raised.__context__)
    candidates += record.args if isinstance(record.args, tuple) else ()
    yield from (one for one in candidates if isinstance(one, BaseException))
