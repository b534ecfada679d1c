"""Refusals of our own, in the error format of the API that was called.

Anthropic: https://docs.anthropic.com/en/api/errors. OpenAI:
https://platform.openai.com/docs/guides/error-codes. SDKs read the message only from these formats.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import msgspec

from gateway.network.headers import REASON, Headers

Dialect = Literal["anthropic", "chat", "responses"]

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_OPENAI_CODES = {
    401: "invalid_api_key",
    404: "not_found",
    413: "request_too_large",
    429: "rate_limit_exceeded",
}
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


@dataclass(slots=True)
class Refusal(Exception):
    """An error with which the gateway itself answers a call.

    - `reason`: a word for programs and metrics. Its header is never on a provider's answer, so it
      also shows who answered.
    - `retry_after`: in seconds.
    - `retry`: False tells the SDKs not to retry (`x-should-retry`); None leaves the choice to them.
    - `details`: further fields of the error object.
    - `headers`: further headers of the answer.
    - `denial`: whether credits are used up. Waiting a little doesn't help then, and the status can
      be chosen (`denial_status.py`).
    - `dialect`: the API that was meant, if the path does not show it.
    """

    status: int
    reason: str
    message: str
    retry_after: int | None = None
    retry: bool | None = None
    code: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    headers: Headers = field(default_factory=list)
    denial: bool = False
    dialect: Dialect | None = None

    def response(self, dialect: Dialect, request_id: str) -> tuple[int, Headers, bytes]:
        """Return status, headers and body."""
        headers: Headers = [
            (b"content-type", b"application/json"),
            (b"x-request-id", request_id.encode()),
            (REASON, self.reason.encode()),
            *self.headers,
        ]
        if dialect == "anthropic":
            headers.append((b"request-id", request_id.encode()))
        if self.retry_after is not None:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        if self.retry is not None:
            headers.append((b"x-should-retry", b"true" if self.retry else b"false"))
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        body = msgspec.json.encode(self._body(dialect, request_id))
        headers.append((b"content-length", str(len(body)).encode()))
        return self.status, headers, body

    def _body(self, dialect: Dialect, request_id: str) -> dict[str, Any]:
        common = {"reason": self.reason, **self.details}
        if dialect == "anthropic":
            kind = _ANTHROPIC_TYPES.get(
                self.status, "invalid_request_error" if self.status < 500 else "api_error"
            )
            return {
                "type": "error",
                "error": {"type": kind, "message": self.message, **common},
                "request_id": request_id,
            }
        code = self.code or _OPENAI_CODES.get(self.status)
        kind = self.code or _OPENAI_TYPES.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        error = {"message": self.message, "type": kind, "param": None, "code": code, **common}
        resets_at = error.get("resets_at")
        if dialect == "responses" and resets_at is not None:
            # Codex reads Unix seconds here. With anything else it does not recognize that the
            # quota is exhausted, so it waits for Retry-After and tries again.
            error["resets_at"] = int(datetime.fromisoformat(resets_at).timestamp())
            return {"error": error, "resets_at": resets_at}
        return {"error": error}


def bad_request(message: str, reason: str = "invalid_request") -> Refusal:
    """Return a 400: the request has to be changed."""
    return Refusal(400, reason, message, retry=False)


def forbidden(message: str, reason: str = "not_allowed") -> Refusal:
    """Return a 403: another credential, product or model is needed."""
    return Refusal(403, reason, message, retry=False)


def unavailable(message: str, reason: str, retry_after: int = 5) -> Refusal:
    """Return a 503: the call cannot be decided or made at the moment."""
    return Refusal(503, reason, message, retry_after=retry_after)
