"""HTTP headers: those of one connection only, and the gateway's own."""

Headers = list[tuple[bytes, bytes]]  # names in lower case, in the order in which they came

# Headers of one connection only (RFC 9110, 7.6.1), which are not forwarded.
HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip

# Headers that show who answered. A body cannot, because a provider can write anything into it. The
# same headers are removed from a provider's answer.
OURS = b"x-tollgate-"
REASON = OURS + b"reason"  # on a refusal of the gateway: its reason
REPLAYED = OURS + b"replayed"  # on an answer that was kept and is replayed
RUN_USED = OURS + b"run-used"  # on an answer: the percentage of its cap that the run had used
PROVIDER = OURS + b"provider"  # on a provider's answer: the provider


def without_named(headers: Headers, connection: list[bytes]) -> Headers:
    """Return the headers without those named in `connection` headers (RFC 9110, 7.6.1)."""
    named = {token.strip().lower() for value in connection for token in value.split(b",")}
    return [header for header in headers if header[0] not in named] if named else headers
