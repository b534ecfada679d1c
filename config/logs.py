"""Structured logs: one line per event on standard error, from structlog and the standard library.

Lines never contain secrets: `redact` works on the finished line and masks the secrets in the
settings and whatever looks like one of our credentials or Slack's.
"""

import logging
import re
from collections.abc import Iterable
from typing import Any

import django.db
import kombu.exceptions
import redis
import structlog

MIN_SECRET_LENGTH = 8
"""A shorter secret would mask ordinary words."""

_CREDENTIAL = re.compile(
    r"(?:\b(?:phx_|pha_|phr_|xox[a-z]-|xapp-|sk-)|\bBearer\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE
)
_known: list[str] = []


def mask_secrets(secrets: Iterable[str]) -> None:
    """Mask these secrets in every log line from now on."""
    _known.extend(secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH)


def redact(_logger: Any, _name: str, line: str) -> str:
    """Return the line with every secret masked. The first characters show what kind it was."""
    for secret in _known:
        line = line.replace(secret, "…")
    return _CREDENTIAL.sub(lambda found: found.group()[:4] + "…", line)


_STORE_AWAY = (
    redis.ConnectionError,  # also while it loads its data
    redis.TimeoutError,
    kombu.exceptions.OperationalError,
    django.db.OperationalError,
    django.db.InterfaceError,
    ConnectionError,
    TimeoutError,
)


def tone_down(record: logging.LogRecord) -> bool:
    """Return whether to write a record, and turn expected failures into one-line warnings.

    An unavailable store is not a bug: the work is repeated, and probes and metrics show the outage.
    Yet Celery logs an error at each attempt, and beat logs a traceback.

    The SDK's record of a failed activity is dropped, because `workflows.interceptors` logs it too.
    """
    if getattr(record, "__temporal_error_identifier", None) == "ActivityFailure":
        return False
    if record.name == "py.warnings" and "CPendingDeprecationWarning" in record.getMessage():
        return False  # Celery warns each time it loses the broker
    away = _store_away(record)
    refused = record.name == "django.request" and getattr(record, "status_code", 0) == 503
    if away is not None or refused:
        record.levelno, record.levelname = min(
            (record.levelno, record.levelname), (logging.WARNING, "WARNING")
        )
    if away is not None and record.exc_info:
        first_line = record.getMessage().partition("\n")[0]
        record.msg, record.args = f"{first_line}: {type(away).__name__}: {away}", ()
        record.exc_info = record.exc_text = None
    return True


def _store_away(record: logging.LogRecord) -> BaseException | None:
    raised = record.exc_info[1] if record.exc_info else None
    candidates: list[Any] = [raised]
    if record.name == "celery.beat" and raised is not None:  # beat wraps the original error
        candidates.append(raised.__cause__ or raised.__context__)
    if record.name.startswith("celery."):
        candidates += record.args if isinstance(record.args, tuple) else ()
    return next((each for each in candidates if isinstance(each, _STORE_AWAY)), None)


_SHARED: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.UnicodeDecoder(),
]

structlog.configure(
    processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.KeyValueRenderer(
                    key_order=["timestamp", "level", "logger", "event"], drop_missing=True
                ),
                redact,
            ],
            "foreign_pre_chain": _SHARED,
        }
    },
    "filters": {"tone down": {"()": lambda: tone_down}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["tone down"],
        }
    },
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "httpx2": {"level": "WARNING"},
        # Sweeps that find nothing would log a line every second.
        "celery.app.trace": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "slack_sdk": {"level": "WARNING"},
        "temporalio": {"level": "WARNING"},
    },
}


def with_error_reports(dsn: str, environment: str) -> dict[str, Any]:
    """Return the configuration with a handler that reports errors to Sentry.

    It comes after the handler of the log, whose filter turns expected failures into warnings.
    """
    reports = {
        "()": "config.error_reports.ErrorReports",
        "filters": ["tone down"],
        "dsn": dsn,
        "environment": environment,
    }
    return LOGGING | {
        "handlers": LOGGING["handlers"] | {"sentry": reports},
        "root": LOGGING["root"] | {"handlers": [*LOGGING["root"]["handlers"], "sentry"]},
    }
