"""The status of a refusal for lack of credits, which depends on the API, operator and caller.

Many clients retry after any 429, whatever the headers say. They stop at a 402 and show its text.
The SDKs of Anthropic and OpenAI obey `x-should-retry`, and programs built on them expect a 429.
docs/gateway.md lists how each client behaves.
"""

from collections.abc import Mapping
from dataclasses import replace

from gateway.errors import Dialect, Refusal, bad_request
from gateway.network.headers import Headers

HEADER = b"x-tollgate-denial-status"
_STATUSES = {b"402": 402, b"429": 429}
# Plain HTTP libraries. A program that uses one was written for this gateway and its refusals.
_HTTP_LIBRARIES = (
    b"curl/",
    b"wget/",
    b"httpie/",
    b"python-httpx/",
    b"python-httpx2/",
    b"python-requests/",
    b"python-urllib",
    b"python/",
    b"aiohttp/",
    b"testclient",
    b"node",
    b"undici",
    b"axios/",
    b"got",
    b"go-http-client/",
    b"okhttp/",
    b"java/",
    b"java-http-client/",
    b"ruby",
    b"postmanruntime/",
    b"schemathesis/",
    b"mozilla/",
)


def check_header(headers: Headers) -> None:
    """Raise a 400 `Refusal` if the caller asks for an unknown status, or for two."""
    values = {value for name, value in headers if name == HEADER}
    if len(values) > 1 or not values <= _STATUSES.keys():
        raise bad_request(f"{HEADER.decode()} must be 402 or 429.")


def fit(
    refusal: Refusal,
    dialect: Dialect,
    headers: Mapping[bytes, bytes],
    configured: Mapping[Dialect, int],
) -> Refusal:
    """Return the refusal with the status that the caller asked for, else the operator's.

    If neither chose one, an application that sends its own `user-agent` gets 402; SDKs and HTTP
    libraries get 429.
    """
    codex = dialect == "responses" and headers.get(b"originator", b"").startswith(b"codex")
    status = _STATUSES.get(headers.get(HEADER, b""))
    if status is None:
        status = configured.get(dialect, 429 if codex or _expects_429(headers) else 402)
    if status == 402:  # clients would obey a Retry-After, but the limit may last for weeks
        return replace(refusal, status=402, retry_after=None)
    return _for_codex(refusal) if codex else refusal


def _expects_429(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the caller is an SDK that obeys `x-should-retry`, or an HTTP library."""
    if b"x-stainless-lang" in headers:  # sent by the SDKs of Anthropic and OpenAI
        return True
    agent = headers.get(b"user-agent", b"").lower()
    return not agent or agent.startswith(_HTTP_LIBRARIES)


def _for_codex(refusal: Refusal) -> Refusal:
    """Return a 429 whose text the Codex CLI shows, without retrying.

    It shows the text of a 429 only from this header, and only for this type of error. It appends
    ", or try again at" and the reset time.
    """
    text = "".join(char if char.isprintable() else " " for char in refusal.message)
    promo = text.removesuffix(".").encode("ascii", "replace")
    return replace(
        refusal,
        headers=[*refusal.headers, (b"x-codex-promo-message", promo)],
        details={**refusal.details, "type": "usage_limit_reached"},
    )
