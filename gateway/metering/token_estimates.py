"""Estimating the tokens of text whose usage is not reported.

Providers give four characters of English as the rule of thumb
(https://platform.claude.com/docs/en/about-claude/glossary#tokens,
https://help.openai.com/en/articles/4936856). Counted in bytes of UTF-8, the rule also works for
other scripts: a Chinese character counts as 0.75 tokens, a Cyrillic one as 0.5. Each piece that a
provider sends by itself counts as at least one token.
"""

from gateway.metering.excerpt import Text

BYTES_PER_TOKEN = 4
MAX_TEXT = 1 << 40


class UnreportedText:
    """Counts generated text that no reported usage covers yet."""

    def __init__(self) -> None:
        self._bytes = 0  # of text; at least one token's for each piece

    @property
    def tokens(self) -> int:
        """The estimated number of tokens."""
        return tokens_of(self._bytes)

    def add(self, piece: Text) -> int:
        """Count a piece of text that came by itself; return the bytes that it counts for."""
        if not piece:
            return 0
        size = len(piece) if piece.__class__ is str and piece.isascii() else size_of(piece)
        size = max(size, BYTES_PER_TOKEN)
        self._bytes += size
        return size

    def add_bytes(self, size: int) -> None:
        """Count text by its size."""
        self._bytes += size

    def reset(self) -> None:
        """Start again at zero, because usage was reported."""
        self._bytes = 0


def tokens_of(size: int) -> int:
    """Return the estimated tokens of a text of this size in bytes."""
    return -(-size // BYTES_PER_TOKEN)


def size_of(text: Text) -> int:
    """Return the size of a text in bytes of UTF-8."""
    if isinstance(text, int):
        return min(max(text, 0), MAX_TEXT)
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
