"""Paths and methods that don't exist, and what to use instead.

Clients append their own path to a base URL, so `/v1` or the product can be missing, repeated or
misplaced.
"""

import re
from difflib import get_close_matches

from gateway import apis, products
from gateway.apis import Api
from gateway.errors import Refusal

_SERVED = (*apis.METERED, apis.COUNT_TOKENS, apis.OPENAI_MODELS)
_APIS = {api.path.removeprefix("/v1/"): api for api in _SERVED}
# Names that the similarity search would miss: former APIs, and a shortened name.
_ALSO = {
    "chat": apis.CHAT_COMPLETIONS,
    "complete": apis.MESSAGES,
    "completions": apis.CHAT_COMPLETIONS,
}
_FIRST_WORDS = {"usage", *(name.partition("/")[0] for name in (*_APIS, *_ALSO))}
_VERSION = re.compile(r"v\d{1,2}")
_LIKENESS = 0.75
_LONGEST = 100  # characters of a path that are read


def is_misplaced(path: str) -> bool:
    """Return whether the product is missing or misplaced. An unknown product is neither."""
    first, *others = path[:_LONGEST].lower().removeprefix("/").split("/")
    if products.find(first) is not None:
        return False
    return (
        first == ""
        or first in _FIRST_WORDS
        or _VERSION.fullmatch(first) is not None
        or any(products.find(name) is not None for name in others)
    )


def not_found(path: str, advice: str = "") -> Refusal:
    """Return the 404 for a path, with the advice or else the path that was probably meant."""
    path = path[:_LONGEST]
    words = [word for word in path.lower().split("/") if word and not _VERSION.fullmatch(word)]
    named = next((word for word in words if products.find(word) is not None), None)
    product = named or "<product>"
    words = [word for word in words if word != named]
    api = _meant(words)
    if words[:1] == ["usage"]:
        use = f"GET /v1/usage/{product}"
    elif api is not None:
        use = f"{api.method} /{product}{api.path}"
    else:
        use = "one of " + ", ".join(f"/{product}{each.path}" for each in _SERVED)
    message = f"There is nothing at {path}. {advice or f'Use {use}.'}"
    if named is None:
        message += f" The products are {', '.join(products.KNOWN_NAMES)}."
    refusal = Refusal(404, "not_found", message, retry=False)
    if api is not None and api is not apis.OPENAI_MODELS:  # there, a header decides the dialect
        refusal.dialect = api.dialect
    return refusal


def method_not_allowed(allowed: str, path: str) -> Refusal:
    """Return the 405 for a path that only exists for the `allowed` methods."""
    return Refusal(
        405,
        "method_not_allowed",
        f"Use {allowed} for {path[:_LONGEST]}.",
        retry=False,
        headers=[(b"allow", allowed.encode())],
    )


def _meant(words: list[str]) -> Api | None:
    """Return the API whose path these words are, or resemble; else None."""
    known = _APIS | _ALSO
    for start in range(len(words)):
        if (api := known.get("/".join(words[start:]))) is not None:
            return api
    for name in ("/".join(words), *words[:1]):
        if close := get_close_matches(name, known, n=1, cutoff=_LIKENESS):
            return known[close[0]]
    return None
