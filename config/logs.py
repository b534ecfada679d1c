"""Structured logs: one line per event, on standard error, from structlog and the standard library.

Secrets never reach a line. `redact` works on the finished line, whatever it was made of: it masks
what looks like one of our credentials or Slack's, and the secrets that the settings told it of.
"""

import re
from collections.abc import Iterable
from typing import Any

import structlog

LEAST_SECRET = 8
"""A shorter secret would mask ordinary words."""

_CREDENTIAL = re.compile(
    r"(?:\b(?:phx_|pha_|phr_|xox[a-z]-|xapp-|sk-)|\bBearer\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE
)
_known: list[str] = []


def conceal(secrets: Iterable[str]) -> None:
    """Have these secrets masked from now on, wherever they occur."""
    _known.extend(secret for secret in secrets if len(secret) >= LEAST_SECRET)


def redact(_logger: Any, _name: str, line: str) -> str:
    """Mask every secret in a finished line: what it is stays recognisable, its value does not."""
    for secret in _known:
        line = line.replace(secret, "…")
    return _CREDENTIAL.sub(lambda found: found.group()[:4] + "…", line)


_SHARED: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]

structlog.configure(
    processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.KeyValueRenderer(
                    key_order=["timestamp", "level", "logger", "event"], drop_missing=True
                ),
                redact,
            ],
            "foreign_pre_chain": _SHARED,
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "httpx2": {"level": "WARNING"},
        # One line a second for sweeps that found nothing would bury the lines that matter.
        "celery.app.trace": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "slack_sdk": {"level": "WARNING"},
        "temporalio": {"level": "WARNING"},
    },
}
