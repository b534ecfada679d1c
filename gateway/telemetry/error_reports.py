"""Errors reported to Sentry: where each happened, and nothing that a caller or a provider wrote.

Imported only if `SENTRY_DSN` is set. Reports are built here from the types and positions of
exceptions. Messages, local variables, requests and the fields of log lines are never read. None of
the SDK's integrations is used: they collect more.
"""

import atexit
import logging
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, cast

from sentry_sdk import Client
from sentry_sdk.types import Event, Hint
from structlog.processors import CallsiteParameter, CallsiteParameterAdder
from structlog.types import EventDict

MOST_FRAMES = 100
MOST_EXCEPTIONS = 10
_ERRORS = frozenset({"error", "exception", "critical"})
_SENT = frozenset(
    {
        "environment", "event_id", "exception", "level", "message", "platform", "release", "sdk",
        "server_name", "threads", "timestamp",
    }
)  # fmt: skip
_locate = CallsiteParameterAdder(
    {
        CallsiteParameter.PATHNAME,
        CallsiteParameter.QUAL_NAME,
        CallsiteParameter.MODULE,
        CallsiteParameter.LINENO,
    },
    additional_ignores=[__name__],
)


class ErrorReports(logging.Handler):
    """Reports errors to a Sentry project: structlog's as a processor, others' as a handler."""

    def __init__(self, dsn: str, environment: str) -> None:
        super().__init__(logging.ERROR)
        self._client = Client(
            dsn,
            environment=environment,
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            include_source_context=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            auto_session_tracking=False,
            enable_backpressure_handling=False,
            spotlight=False,
            before_send=_without_the_rest,
        )
        # uvicorn's logger doesn't propagate to the root logger.
        for name in (None, "uvicorn"):
            logging.getLogger(name).addHandler(self)
        atexit.register(self._client.close)

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        """Report the event if it is an error; return it unchanged. Never raises."""
        if method in _ERRORS:
            try:
                self._client.capture_event(_report(event.get("exc_info"), _locate(logger, "", {})))
            except Exception as error:
                sys.stderr.write(f"an error could not be reported: {type(error).__name__}\n")
        return event

    def emit(self, record: logging.LogRecord) -> None:
        """Report an error of the standard library or of the server."""
        where = {
            "pathname": record.pathname,
            "qual_name": record.funcName,
            "module": record.module,
            "lineno": record.lineno,
        }
        try:
            self._client.capture_event(_report(record.exc_info, where))
        except Exception:
            self.handleError(record)


def _without_the_rest(event: Event, _hint: Hint) -> Event:
    """Return the event without the fields that a later version of the SDK might add."""
    return cast(Event, {name: value for name, value in event.items() if name in _SENT})


def _report(exc_info: Any, where: EventDict) -> Event:
    report: Event = {"level": "error"}
    if exc_info is True:
        exc_info = sys.exc_info()
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException):
        report["exception"] = {"values": [*_chain(error)][::-1]}
    else:
        frame = {
            "filename": where["pathname"],
            "function": where.get("qual_name"),
            "lineno": where["lineno"],
        }
        report["message"] = (
            f"{where['module']}: {frame['function']}"  # Sentry shows it as the title
        )
        report["threads"] = {"values": [{"current": True, "stacktrace": {"frames": [frame]}}]}
    return report


def _chain(error: BaseException) -> Iterator[dict[str, Any]]:
    """Yield an exception and those that led to it, as Python's tracebacks show them."""
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in seen and len(seen) < MOST_EXCEPTIONS:
        seen.append(following)
        kind = type(following)
        frames = [*_frames(following.__traceback__)][-MOST_FRAMES:]
        yield {
            "type": kind.__qualname__,
            "module": kind.__module__,
            "stacktrace": {"frames": frames},
        }
        suppressed = following.__suppress_context__
        following = following.__cause__ or (None if suppressed else following.__context__)


def _frames(trace: TracebackType | None) -> Iterator[dict[str, Any]]:
    for frame, line in traceback.walk_tb(trace):
        yield {
            "filename": frame.f_code.co_filename,
            "function": frame.f_code.co_qualname,
            "module": frame.f_globals.get("__name__"),
            "lineno": line,
        }
