"""Structured logs: one line per event on standard error, from structlog and the standard library.

`LOG_FORMAT` chooses `text` for people, or `json` with the gateway's field names. Lines never
contain secrets: `redact` works on the finished line and masks the secrets in the
settings and whatever looks like one of our credentials or Slack's.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

import structlog

from config.outage_lines import OncePerMinute, tone_down

MIN_SECRET_LENGTH = 8
"""A shorter secret would mask ordinary words."""

_CREDENTIAL = re.compile(
    r"(?:\b(?:phx_|pha_|phr_|xox[a-z]-|xapp-|sk-)|\bBearer\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE
)
_known: list[str] = []


def mask_secrets(secrets: Iterable[str]) -> None:
    """Mask these secrets in every log line from now on."""
    long_ones = [secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH]
    _known.extend(long_ones)
    # JSON and `repr` escape some characters.
    _known.extend(json.dumps(secret)[1:-1] for secret in long_ones)
    _known.extend(repr(secret)[1:-1] for secret in long_ones)


def redact(_logger: Any, _name: str, line: str) -> str:
    """Return the line with every secret masked. The first characters show what kind it was."""
    for secret in _known:
        line = line.replace(secret, "…")
    return _CREDENTIAL.sub(lambda found: found.group()[:4] + "…", line)


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


def _formatter(render: structlog.types.Processor) -> dict[str, Any]:
    return {
        "()": structlog.stdlib.ProcessorFormatter,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            render,
            redact,
        ],
        "foreign_pre_chain": _SHARED,
    }


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": _formatter(
            structlog.processors.KeyValueRenderer(
                key_order=["timestamp", "level", "logger", "event"], drop_missing=True
            )
        ),
        "json": _formatter(structlog.processors.JSONRenderer()),
    },
    "filters": {
        "tone down": {"()": lambda: tone_down},
        "once per minute": {"()": OncePerMinute},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "text",
            "filters": ["tone down", "once per minute"],
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
        "websockets": {"level": "WARNING"},
    },
}


def in_format(log_format: str) -> dict[str, Any]:
    """Return the configuration that writes lines as `text` or as `json`."""
    stderr = LOGGING["handlers"]["stderr"] | {"formatter": log_format}
    return LOGGING | {"handlers": LOGGING["handlers"] | {"stderr": stderr}}


def with_error_reports(logging: dict[str, Any], dsn: str, environment: str) -> dict[str, Any]:
    """Return the configuration with a handler that reports errors to Sentry.

    It comes after the handler of the log, whose filters turn expected failures into warnings.
    """
    reports = {
        "()": "config.error_reports.ErrorReports",
        "filters": ["tone down", "once per minute"],
        "dsn": dsn,
        "environment": environment,
    }
    return logging | {
        "handlers": logging["handlers"] | {"sentry": reports},
        "root": logging["root"] | {"handlers": [*logging["root"]["handlers"], "sentry"]},
    }
