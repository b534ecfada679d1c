"""Report errors to Sentry: where each happened, but nothing that anybody wrote.

Reports are built here from the types and positions of exceptions. Messages, local variables,
requests and log texts are never read, because they quote prompts, Slack's texts and credentials.
The log has them, with secrets masked. The SDK's integrations are not used, because they collect
more.
"""

import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, cast

from sentry_sdk import Client
from sentry_sdk.types import Event, Hint

MOST_FRAMES = 100
MOST_EXCEPTIONS = 10
_SENT = frozenset(
    {
        "environment", "event_id", "exception", "level", "logger", "message", "platform",
        "release", "sdk", "server_name", "threads", "timestamp",
    }
)  # fmt: skip


class ErrorReports(logging.Handler):
    """Sends a report of every record that it gets to a Sentry project."""

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

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a report, which a thread of the SDK sends. It is lost if Sentry cannot take it."""
        try:
            self._client.capture_event(_report(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Send what is queued, which takes at most two seconds."""
        self._client.close()
        super().close()


def _without_the_rest(event: Event, _hint: Hint) -> Event:
    """Return the event without the fields that a later version of the SDK might add."""
    return cast(Event, {name: value for name, value in event.items() if name in _SENT})


def _report(record: logging.LogRecord) -> Event:
    report: Event = {"level": "error", "logger": record.name}
    error = _error_of(record)
    if error is None:
        frame = {"filename": record.pathname, "function": record.funcName, "lineno": record.lineno}
        report["message"] = f"{record.name}: {record.funcName}"  # Sentry shows it as the title
        report["threads"] = {"values": [{"current": True, "stacktrace": {"frames": [frame]}}]}
    else:
        report["exception"] = {"values": [*_chain(error)][::-1]}
    return report


def _error_of(record: logging.LogRecord) -> BaseException | None:
    """Return the exception of a record, which structlog keeps in the message."""
    raised: Any = record.exc_info
    if isinstance(record.msg, Mapping):
        raised = record.msg.get("exc_info")
    if raised is True:
        raised = sys.exc_info()
    if isinstance(raised, tuple):
        raised = raised[1]
    return raised if isinstance(raised, BaseException) else None


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
