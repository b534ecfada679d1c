"""The ways of saying that the credits are used up; the gateway chooses one of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from gateway.errors import Dialect, Refusal
from gateway.network.headers import Headers
from gateway.refusals import denial_status

SENTENCE = "Your team has used its monthly Tollgate AI credits."
RESETS_AT = "2126-12-01T00:00:00+00:00"
_BILLING = "https://billing.example.com"
_MESSAGE = f"{SENTENCE} They reset on 2126-12-01. Top up at {_BILLING} to continue."


@dataclass(frozen=True)
class Variant:
    """One way to say it.

    `fields` replaces fields of the error, by API. With `fitted`, the gateway's own code adapts the
    error to the client.
    """

    name: str
    status: int
    retry_after: int | None = None
    retry: bool | None = False
    fields: dict[Dialect, dict[str, str | None]] = field(default_factory=dict)
    fitted: bool = False

    def response(
        self, dialect: Dialect, asked: Mapping[bytes, bytes]
    ) -> tuple[int, Headers, bytes]:
        """Return status, headers and body for a call whose headers are `asked`."""
        refusal = Refusal(
            self.status,
            "billable_credits",
            _MESSAGE,
            retry_after=self.retry_after,
            retry=self.retry,
            code="insufficient_quota",
            details={
                "resets_at": RESETS_AT,
                "billing_url": _BILLING,
                "cause": "limit_reached",
            },
        )
        if self.fitted:
            refusal = denial_status.fit(refusal, dialect, asked, {})
        status, headers, body = refusal.response(dialect, "req_of_the_benchmark")
        changes = self.fields.get(dialect)
        if changes is None:
            return status, headers, body
        document = msgspec.json.decode(body)
        document["error"].update(changes)
        body = msgspec.json.encode(document)
        headers = [header for header in headers if header[0] != b"content-length"]
        return status, [*headers, (b"content-length", b"%d" % len(body))], body


VARIANTS = (
    Variant("429, Retry-After: 60", 429, retry_after=60),
    Variant("429", 429),
    Variant("429, neither header", 429, retry=None),
    Variant(
        "429, other body",
        429,
        fields={
            "anthropic": {"type": "billing_error"},
            "chat": {"type": "rate_limit_error", "code": "rate_limit_exceeded"},
            "responses": {"type": "usage_limit_reached", "code": None, "plan_type": "team"},
        },
    ),
    Variant("402", 402),
    Variant("403", 403),
    Variant("400", 400),
    Variant("the gateway", 429, retry_after=60, fitted=True),
)
