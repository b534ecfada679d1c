"""About how many tokens a text has, for text whose usage is not reported.

Providers name four characters of English as the rule of thumb
(https://platform.claude.com/docs/en/about-claude/glossary#tokens,
https://help.openai.com/en/articles/4936856). Counted in bytes of UTF-8 the same rule serves other
scripts: a Chinese character comes to 0.75 tokens, a Cyrillic one to half of one. And no piece that
a provider sends by itself is less than one token.
"""

from gateway.metering.excerpt import Text

BYTES_PER_TOKEN = 4
MAX_TEXT = 1 << 40


class UnreportedText:
    """UnreportedText text that no reported usage covers yet."""

    def __init__(self) -> None:
        self._bytes = 0  # of text, rounded up to a token for each piece

    @property
    def tokens(self) -> int:
        """The estimate."""
        return tokens_of(self._bytes)

    def add(self, piece: Text) -> int:
        """Add a piece of text that came by itself; return the bytes that it counts for."""
        if not piece:
            return 0
        size = len(piece) if piece.__class__ is str and piece.isascii() else size_of(piece)
        if size < BYTES_PER_TOKEN:
            size = BYTES_PER_TOKEN
        self._bytes += size
        return size

    def add_bytes(self, size: int) -> None:
        """Add text by its size."""
        self._bytes += size

    def reset(self) -> None:
        """Begin again, because usage was reported."""
        self._bytes = 0


def tokens_of(size: int) -> int:
    """Return the tokens of so many bytes of text."""
    return -(-size // BYTES_PER_TOKEN)


def size_of(text: Text) -> int:
    """Return the bytes of a text in UTF-8."""
    if isinstance(text, int):
        return min(max(text, 0), MAX_TEXT)
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
