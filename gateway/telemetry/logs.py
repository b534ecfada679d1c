"""Structured logs: one JSON object per line on standard error, without prompts or credentials."""

import asyncio
import re
import sys
from datetime import UTC, datetime

import msgspec
import structlog
from structlog.types import Processor

from gateway.telemetry.repetitions import OncePerMinute

_SECRET = re.compile(rb"(?:phx_|pha_|phr_|sk-|Bearer\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)


_lines: list[bytes] = []
_encoder = msgspec.json.Encoder()


def _render(_logger: object, _name: str, event: structlog.types.EventDict) -> bytes:
    return _SECRET.sub(b"[credential]", msgspec.json.encode(event, enc_hook=str))


def configure(report: Processor | None = None) -> None:
    """Make structlog write events to standard error, repeated errors once a minute.

    `report` sees each of these events first.
    """
    structlog.configure(
        processors=[
            OncePerMinute(),
            *([report] if report else []),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.UnicodeDecoder(),  # else bytes become base64
            structlog.processors.format_exc_info,
            _render,
        ],
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )


class _RequestLine(msgspec.Struct, gc=False):
    event: str
    call_id: str
    product: str
    api: str
    status: int
    reason: str | None
    seconds: float
    timestamp: str


def log_request(
    *, call_id: str, product: str, api: str, status: int, reason: str | None, seconds: float
) -> None:
    """Log one request, without structlog, which would take many times as long.

    The lines of one iteration of the event loop are written together. No field may contain text
    from the caller.
    """
    if not _lines:
        asyncio.get_running_loop().call_soon(_write_lines)
    line = _RequestLine(
        "request",
        call_id,
        product,
        api,
        status,
        reason,
        seconds,
        datetime.now(UTC).isoformat(),
    )
    _lines.append(_encoder.encode(line))


def _write_lines() -> None:
    sys.stderr.buffer.write(b"\n".join([*_lines, b""]))
    sys.stderr.buffer.flush()
    _lines.clear()
