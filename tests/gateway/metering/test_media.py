"""What an answer contains, by its headers."""

import pytest

from gateway.metering.media import is_compressed, is_event_stream


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b"text/event-stream"], True),
        ([b"Text/Event-Stream; charset=utf-8"], True),
        ([b"application/json"], False),
        ([b"application/json, text/event-stream"], True),
        ([b"text/event-stream", b"application/json"], False),
        ([b"text/event-stream, nonsense"], True),
        ([b"nonsense"], None),
        ([], None),
    ],
)
def test_the_last_valid_media_type_counts(values, expected):
    headers = [(b"content-type", value) for value in values]
    headers.append((b"accept", b"text/event-stream, application/json"))
    for asked in (True, False):
        assert is_event_stream(headers, asked=asked) == (asked if expected is None else expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], False),
        ([b"identity"], False),
        ([b" Identity ", b""], False),
        ([b"gzip"], True),
        ([b"identity, br"], True),
        ([b"identity", b"zstd"], True),
    ],
)
def test_any_coding_but_identity_is_compression(values, expected):
    headers = [(b"accept-encoding", b"gzip")]
    headers += [(b"content-encoding", value) for value in values]
    assert is_compressed(headers) == expected
