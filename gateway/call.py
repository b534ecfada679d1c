"""One request as it goes through the gateway."""

import os
from collections import deque

import msgspec

from gateway.network.headers import Headers
from gateway.network.incoming import Incoming
from gateway.tracing.trace import NO_TRACE, Trace

_ids: deque[str] = deque()
_VARIANTS = "89ab"


def new_call_id() -> str:
    """Return a random UUID (version 4). Random bytes are fetched for many of them at once."""
    if not _ids:
        digits = os.urandom(16 * 256).hex()
        _ids.extend(_uuid4(digits[at : at + 32]) for at in range(0, len(digits), 32))
    return _ids.popleft()


def _uuid4(digits: str) -> str:
    """Return 32 hexadecimal digits as a UUID with version and variant (RFC 9562, 5.4)."""
    variant = _VARIANTS[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class Call(msgspec.Struct):
    """A request, and what its log line will say.

    If a header was sent twice, `headers` has the last one; `raw_headers` has all, in order.
    `call_id` is a UUID that identifies the request in the log, and its hold and event if it costs
    credits. `run_percent` is the percentage of its cap that the caller's run had used or held
    before, or -1 if it has no cap.
    """

    request: Incoming
    raw_headers: Headers
    headers: dict[bytes, bytes]
    call_id: str
    began: float
    product: str = ""
    api: str = ""
    status: int = 0
    reason: str | None = None
    trace: Trace = NO_TRACE
    run_percent: int = -1

    @property
    def started(self) -> bool:
        """Whether the answer was started."""
        return self.request.started

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a complete answer of our own. Adds `content-length` if it is missing."""
        self.status = status
        if not any(name == b"content-length" for name, _ in headers):
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        self.request.start(status, headers)
        self.request.end(body)
