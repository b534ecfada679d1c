"""Refusing bodies that a provider might read in another encoding than the one that was counted.

The most that a call can cost is counted in bytes of UTF-8, the encoding of JSON between programs
(https://www.rfc-editor.org/rfc/rfc8259#section-8.1). A provider that believed another charset, or
read a form, would see a different text.
"""

import re

from gateway.errors import Refusal
from gateway.network.headers import Headers

# Names of UTF-8: https://www.iana.org/assignments/character-sets, https://encoding.spec.whatwg.org
_UTF_8 = frozenset(
    {
        "utf-8", "utf8", "csutf8", "unicode-1-1-utf-8", "unicode11utf8", "unicode20utf8",
        "x-unicode20utf8",
    }
)  # fmt: skip
# A name and its value. A quoted value can hold anything.
_PARAMETER = re.compile(r'([^;=]*)=\s*("(?:[^"\\]|\\.)*"|[^;]*)')


def check(headers: Headers) -> None:
    """Raise a 415 `Refusal` if `content-type` is not JSON in UTF-8, or is there twice.

    A body without `content-type` passes, because nothing names another charset.
    """
    given = [value for name, value in headers if name == b"content-type"]
    if given and (len(given) > 1 or (given[0] != b"application/json" and not _is_json(given[0]))):
        raise Refusal(
            415,
            "unsupported_media_type",
            "The request body must be application/json, in UTF-8.",
            retry=False,
        )


def refuse_compressed(headers: Headers) -> None:
    """Raise a 415 `Refusal` if the body is compressed, because it could not be counted.

    Codings are compared without regard to case; "identity" is not one.
    https://www.rfc-editor.org/rfc/rfc9110#section-8.4
    """
    codings = b",".join(value for name, value in headers if name == b"content-encoding")
    if any(coding.strip().lower() not in (b"", b"identity") for coding in codings.split(b",")):
        raise Refusal(
            415, "unsupported_encoding", "The request body must not be compressed.", retry=False
        )


def _is_json(given: bytes) -> bool:
    kind, _, parameters = given.decode("latin-1").partition(";")
    if kind.strip().lower() != "application/json":
        return False
    charsets = [
        (quoted[1:-1] if quoted.startswith('"') else quoted).strip().lower()
        for name, quoted in _PARAMETER.findall(parameters)
        if name.strip().lower().startswith("charset")  # charset*=… is another spelling
    ]
    return all(charset in _UTF_8 for charset in charsets)
