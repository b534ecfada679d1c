"""What an answer contains, by its headers. Case does not matter (RFC 9110, 8.3 and 8.4)."""

from gateway.network.headers import Headers


def is_event_stream(headers: Headers, *, asked: bool) -> bool:
    """Return whether an answer is an event stream, or `asked` if it has no media type.

    The last of several types counts (https://fetch.spec.whatwg.org/#concept-header-extract-mime-type).
    """
    types = [each.partition(b";")[0].strip().lower() for each in _values(headers, b"content-type")]
    types_given = [each for each in types if b"/" in each]
    return types_given[-1] == b"text/event-stream" if types_given else asked


def is_compressed(headers: Headers) -> bool:
    """Return whether an answer is encoded, so that it cannot be read while it passes."""
    codings = {each.strip().lower() for each in _values(headers, b"content-encoding")}
    return bool(codings - {b"identity", b""})


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [each for name, value in headers if name == wanted for each in value.split(b",")]
