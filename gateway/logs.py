"""Structured logs: one JSON object a line, on standard error; no prompt text, no credential."""

import re
import sys

import msgspec
import structlog

_SECRET = re.compile(r"(?:phx_|pha_|phr_|sk-|Bearer\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)


def _render(_logger: object, _name: str, event: structlog.types.EventDict) -> bytes:
    line = msgspec.json.encode(event, enc_hook=str)
    return _SECRET_BYTES.sub(rb"[credential]", line)


_SECRET_BYTES = re.compile(_SECRET.pattern.encode(), re.IGNORECASE)


def configure() -> None:
    """Send every event of structlog to standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _render,
        ],
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
