"""Which requests may leave the sandbox, and what of their headers."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import h11

Headers = list[tuple[bytes, bytes]]

_SEGMENT = r"(?!\.{1,2}(?:/|$|\?))[A-Za-z0-9._~:@!$&'()*+,;=-]+"
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding"))
_OF_PROXIES = (b"forwarded", b"via", b"x-forwarded-", b"x-real-ip", b"true-client-ip")
"""What a gateway may believe of a proxy in front of it, and so must not come from inside."""


@dataclass(frozen=True)
class Refused(Exception):
    """The request must not leave. The answer's status, and the reason."""

    status: int
    reason: str


class PathFilter:
    """Allows the paths of one product, written in the plainest way only.

    A server may decode or shorten a path after it was checked. A plain path means the same to
    every server: no percent sign, no dot segment, no empty segment, no backslash.
    """

    def __init__(self, product: str) -> None:
        path = rf"/{re.escape(product)}(?:/{_SEGMENT})+"
        self._allowed = re.compile(rf"{path}(?:\?[!-~]*)?".encode())

    def allows(self, target: bytes) -> bool:
        """Return whether the request target may be asked for."""
        return b"#" not in target and self._allowed.fullmatch(target) is not None


def admit(request: h11.Request, paths: PathFilter, token: str = "") -> None:
    """Raise `Refused` unless the request may leave. If there is a token, it must bear that only."""
    if request.method == b"CONNECT":
        raise Refused(405, "CONNECT is not available")
    if not paths.allows(request.target):
        raise Refused(403, "only the gateway's paths for this run can be reached")
    if token and not _bears(request.headers, token):
        raise Refused(401, "the run's own token is needed, and no other credential")
    names = [name for name, _ in request.headers]
    if b"upgrade" in names:
        raise Refused(400, "upgrades are not available")
    if b"content-length" in names and b"transfer-encoding" in names:
        raise Refused(400, "the length of the body is ambiguous")
    if _FRAMING & nominated(request.headers):
        raise Refused(400, "the Connection header names a header that is needed")


def _bears(headers: Iterable[tuple[bytes, bytes]], token: str) -> bool:
    """Return whether the request has the token as a credential, and no other credential.

    Only forms that the gateway accepts count, so code inside cannot provoke a refusal.
    """
    forms = {b"authorization": f"Bearer {token}".encode(), b"x-api-key": token.encode()}
    given = [(name, value) for name, value in headers if name in forms]
    names = {name for name, _ in given}
    return 0 < len(given) == len(names) and all(forms[name] == value for name, value in given)


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers that concern both ends, and not only this connection."""
    given = list(headers)
    dropped = _HOP_BY_HOP | nominated(given)
    return [(name, value) for name, value in given if name not in dropped]


def request_headers(request: h11.Request, host: bytes) -> Headers:
    """Return what the gateway gets: its own name as the host, and no word of other proxies."""
    kept = [
        (name, value)
        for name, value in end_to_end(request.headers)
        if name not in (b"host", b"expect") and not name.startswith(_OF_PROXIES)
    ]
    framing = [(b"transfer-encoding", b"chunked")] if _is_chunked(request) else []
    return [(b"host", host), *kept, *framing]


def nominated(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Return the names that the Connection header lists: they are for this connection only."""
    values: Sequence[bytes] = [value for name, value in headers if name == b"connection"]
    return frozenset(part.strip().lower() for value in values for part in value.split(b","))


def _is_chunked(request: h11.Request) -> bool:
    return any(name == b"transfer-encoding" for name, _ in request.headers)
