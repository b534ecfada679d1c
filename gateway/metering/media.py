"""What an answer is, by its headers, compared without case as RFC 9110 (8.3, 8.4) says."""

from gateway.network.headers import Headers


def is_event_stream(headers: Headers, *, asked: bool) -> bool:
    """Return whether an answer is a stream of events; without a media type, whether one was asked.

    Of several types the last one counts (https://fetch.spec.whatwg.org/#concept-header-extract-mime-type).
    """
    types = [each.partition(b";")[0].strip().lower() for each in _values(headers, b"content-type")]
    types_given = [each for each in types if b"/" in each]
    return types_given[-1] == b"text/event-stream" if types_given else asked


def is_compressed(headers: Headers) -> bool:
    """Return whether an answer is encoded in any way, so that it cannot be read as it passes."""
    codings = {each.strip().lower() for each in _values(headers, b"content-encoding")}
    return bool(codings - {b"identity", b""})


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [each for name, value in headers if name == wanted for each in value.split(b",")]
