"""Headers of HTTP, and which of them are about one connection only."""

Headers = list[tuple[bytes, bytes]]  # names in lower case, in the order in which they came

# Of one connection (RFC 9110, 7.6.1), and what is made anew for the next.
HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip

# Who answered. A body cannot say that, because a provider can write anything into it. Providers'
# own headers of this family are dropped.
OURS = b"x-tollgate-"
REASON = OURS + b"reason"  # on a refusal of the gateway's own: its reason
REPLAYED = OURS + b"replayed"  # on an answer that was kept and is given again
PROVIDER = OURS + b"provider"  # on an answer that was passed on: whose it is


def without_named(headers: Headers, connection: list[bytes]) -> Headers:
    """Leave out what the values of `connection` name as theirs alone (RFC 9110, 7.6.1)."""
    named = {token.strip().lower() for value in connection for token in value.split(b",")}
    return [header for header in headers if header[0] not in named] if named else headers
