"""Choose which files of a repository to show a model for a request, within a budget of bytes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from coding_tasks.reading.checkouts import Checkout

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")
_COMMON = frozenset(
    (
        "about", "add", "and", "are", "can", "change", "check", "code", "could", "does", "file",
        "files", "fix", "for", "from", "has", "have", "how", "its", "make", "need", "not", "please",
        "repository", "should", "that", "the", "there", "this", "use", "used", "was", "what",
        "when", "where", "which", "why", "will", "with", "would", "you", "your",
    )
)  # fmt: skip
_NAMED, _README, _IN_PATH, _IN_TEXT = 100, 50, 10, 1


@dataclass(frozen=True)
class Budget:
    """How much is read and shown. Sizes are in bytes."""

    shown: int = 60_000
    shown_of_one_file: int = 20_000
    searched_files: int = 500
    searched_of_one_file: int = 20_000
    listed_paths: int = 400
    listed: int = 20_000
    earlier: int = 60_000
    """For earlier turns of the thread. The oldest are left out."""


@dataclass(frozen=True)
class Excerpt:
    """The beginning of one file, or (`whole`) all of it."""

    path: str
    text: str
    whole: bool


def relevant_files(checkout: Checkout, request: str, budget: Budget) -> list[Excerpt]:
    """Return excerpts of the files that the request is about, most relevant first.

    A README at the top is always relevant. Files that are not text never are.
    """
    words = {word.lower() for word in _WORD.findall(request)} - _COMMON
    paths = checkout.files()
    scores = {path: _score_of_path(path, request, words) for path in paths}
    likely_first = sorted(paths, key=lambda path: -scores[path])
    for path in likely_first[: budget.searched_files] if words else ():
        text = _text(checkout.read(path, budget.searched_of_one_file))
        if text:
            scores[path] += _IN_TEXT * len(words & {word.lower() for word in _WORD.findall(text)})
    chosen = sorted((path for path in paths if scores[path]), key=lambda path: -scores[path])
    return _within(budget, checkout, chosen)


def _score_of_path(path: str, request: str, words: set[str]) -> int:
    name = path.rpartition("/")[2]
    score = 0
    if path in request or ("." in name and name in request):
        score += _NAMED
    if "/" not in path and name.lower().startswith("readme"):
        score += _README
    parts = {part.lower() for part in re.split(r"[^A-Za-z0-9]+", path)}
    return score + _IN_PATH * len(words & parts)


def _within(budget: Budget, checkout: Checkout, paths: Iterable[str]) -> list[Excerpt]:
    excerpts: list[Excerpt] = []
    left = budget.shown
    for path in paths:
        most = min(left, budget.shown_of_one_file)
        content = checkout.read(path, most + 1)
        text = _text(content and content[:most])
        if not text or content is None:
            continue
        excerpts.append(Excerpt(path, text, whole=len(content) <= most))
        left -= min(len(content), most)
        if left <= 0:
            break
    return excerpts


def _text(content: bytes | None) -> str:
    """Return the content as text, or nothing if it is not text."""
    if not content or b"\0" in content:
        return ""
    return content.decode("utf-8", "replace")
