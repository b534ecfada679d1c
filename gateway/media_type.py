"""In which encoding a provider reads a body: the one in which it was counted, or none.

What a call can cost at most is counted in bytes of UTF-8, which is what JSON is written in between
programs (https://www.rfc-editor.org/rfc/rfc8259#section-8.1). A provider that believed another
charset, or read a form, would see another text than the one that was bounded.
"""

from gateway.errors import Refusal
from gateway.headers import Headers


def check(headers: Headers) -> None:
    """Refuse (415) a body that is announced as anything but JSON in UTF-8, or as two things.

    Without a `content-type` there is no other charset to believe.
    """
    told = [value for name, value in headers if name == b"content-type"]
    if told and (len(told) > 1 or (told[0] != b"application/json" and not _is_json(told[0]))):
        raise Refusal(
            415,
            "unsupported_media_type",
            "The request body must be application/json, in UTF-8.",
            retry=False,
        )


def _is_json(told: bytes) -> bool:
    kind, _, parameters = told.decode("latin-1").partition(";")
    if kind.strip().lower() != "application/json":
        return False
    named = [part.partition("=") for part in parameters.split(";") if part.strip()]
    charsets = [
        value.strip().strip('"').lower()
        for name, _, value in named
        if name.strip().lower().startswith("charset")  # charset*=… is another way to write it
    ]
    return all(charset in ("utf-8", "utf8") for charset in charsets)
