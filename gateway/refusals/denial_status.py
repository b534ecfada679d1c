"""The status of a refusal for want of credits: it differs by API, operator and caller.

Many clients try again after any 429, whatever the headers say. They stop at a 402 and show its
text. The SDKs of Anthropic and OpenAI obey `x-should-retry`, and a 429 is what programs built on
them expect. docs/gateway.md has the figures of each client.
"""

from collections.abc import Mapping
from dataclasses import replace

from environs import EnvError

from gateway.network.headers import Headers
from gateway.refusals.errors import Dialect, Refusal, bad_request

HEADER = b"x-tollgate-denial-status"
_STATUSES = {"402": 402, "429": 429}
# Libraries that only carry requests: whoever uses one wrote the program for these refusals.
_HTTP_LIBRARIES = (
    *(b"curl/", b"wget/", b"httpie/", b"python-httpx/", b"python-requests/", b"python-urllib"),
    *(b"python/", b"aiohttp/", b"testclient", b"node", b"undici", b"axios/", b"got"),
    *(b"go-http-client/", b"okhttp/", b"java/", b"java-http-client/", b"ruby", b"postmanruntime/"),
    *(b"schemathesis/", b"mozilla/"),
)
# The names of the APIs, as operators write them.
_DIALECTS: dict[str, Dialect] = {"messages": "anthropic", "chat": "chat", "responses": "responses"}


def read_setting(written: str) -> dict[Dialect, int]:
    """Return the status by API: of `429` for all, of `messages=402,chat=429` for those named.

    Raise `EnvError` if it is neither.
    """
    if not written:
        return {}
    if written in _STATUSES:
        return dict.fromkeys(_DIALECTS.values(), _STATUSES[written])
    found: dict[Dialect, int] = {}
    for part in written.split(","):
        api, _, status = (word.strip() for word in part.partition("="))
        if api not in _DIALECTS or status not in _STATUSES or _DIALECTS[api] in found:
            raise EnvError(
                "Write 402 or 429, or one for each API: messages=402,chat=429,responses=429."
            )
        found[_DIALECTS[api]] = _STATUSES[status]
    return found


def check_header(headers: Headers) -> None:
    """Raise a 400 `Refusal` if the caller asks for a status that there isn't, or for two."""
    values = {value for name, value in headers if name == HEADER}
    if len(values) > 1 or not values <= {b"402", b"429"}:
        raise bad_request(f"{HEADER.decode()} must be 402 or 429.")


def fit(
    refusal: Refusal,
    dialect: Dialect,
    headers: Mapping[bytes, bytes],
    configured: Mapping[Dialect, int],
) -> Refusal:
    """Return the refusal with the status that the caller asks for, or else the operator.

    If neither does, an application that calls itself by a name gets 402, and all others 429.
    """
    codex = dialect == "responses" and headers.get(b"originator", b"").startswith(b"codex")
    status = _STATUSES.get(headers.get(HEADER, b"").decode("latin-1"))
    if status is None:
        status = configured.get(dialect, 429 if codex or _expects_429(headers) else 402)
    if status == 402:  # a Retry-After would be obeyed, and what is limited stays so for weeks
        return replace(refusal, status=402, retry_after=None)
    return _for_codex(refusal) if codex else refusal


def _expects_429(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the caller is an SDK that obeys `x-should-retry`, or only an HTTP library."""
    if b"x-stainless-lang" in headers:  # sent by the SDKs of Anthropic and OpenAI
        return True
    agent = headers.get(b"user-agent", b"").lower()
    return not agent or agent.startswith(_HTTP_LIBRARIES)


def _for_codex(refusal: Refusal) -> Refusal:
    """Return a 429 of which the Codex CLI shows the text, after one attempt.

    It shows the text of a 429 only from this header, and only for this type of error. It puts
    ", or try again at" and the reset time behind it.
    """
    text = "".join(char if char.isprintable() else " " for char in refusal.message)
    promo = text.removesuffix(".").encode("ascii", "replace")
    return replace(
        refusal,
        headers=[*refusal.headers, (b"x-codex-promo-message", promo)],
        details={**refusal.details, "type": "usage_limit_reached"},
    )
