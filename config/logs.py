"""Structured logs: one line per event, on standard error, from structlog and the standard library.

Secrets never reach a line: `redact` masks whatever looks like one of our credentials or Slack's.
"""

import re
from typing import Any

import structlog

_SECRET = re.compile(
    r"(?:phx_|pha_|phr_|xox[a-z]-|sk-|Bearer\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE
)


def redact(_logger: Any, _name: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Replace every credential in the event's text values by its first characters."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = _SECRET.sub(lambda found: found.group()[:4] + "…", value)
    return event


_SHARED: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    redact,
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
            ],
            "foreign_pre_chain": _SHARED,
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "httpx": {"level": "WARNING"},
        "slack_sdk": {"level": "WARNING"},
        "temporalio": {"level": "WARNING"},
    },
}
