"""What kind of image some bytes are, and how large it is, read from its headers alone.

Nothing is decoded, so a small file that would become a huge picture costs nothing here. The kinds
are those that models take. Names and declared types don't count.
"""

from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_SIDE = 8_000
"""Pixels. Providers refuse longer sides:
https://docs.claude.com/en/docs/build-with-claude/vision#evaluate-image-size"""
MOST_PIXELS = 40_000_000
"""Pixels of the whole image. Decoded, they take 160 MB."""
_MOST_BLOCKS = 20_000
"""Segments before a JPEG's scan, or frames and extensions of a GIF. Only crafted files have more,
which would cost seconds and a hundred megabytes."""
_PNG = b"\x89PNG\r\n\x1a\n"
_GIF_FRAME, _GIF_EXTENSION, _GIF_END = 0x2C, 0x21, 0x3B
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9


class Damaged(Exception):
    """The bytes begin like an image, but its size cannot be read."""


@dataclass(frozen=True)
class Image:
    """An image's kind, as in `image/png`, and its size."""

    kind: str
    width: int
    height: int

    @property
    def is_too_large(self) -> bool:
        """Return whether it has more pixels than we accept."""
        longest = max(self.width, self.height)
        return longest > LONGEST_SIDE or self.width * self.height > MOST_PIXELS


def image_of(content: bytes) -> Image | None:
    """Return the image that these bytes are, or None if they are none. Raises `Damaged`.

    If a file states several sizes, as only crafted ones do, the largest counts.
    """
    for kind, is_this, sizes in (
        ("png", content.startswith(_PNG), _png),
        ("jpeg", content.startswith(b"\xff\xd8\xff"), _jpeg),
        ("gif", content.startswith((b"GIF87a", b"GIF89a")), _gif),
        ("webp", content.startswith(b"RIFF") and content[8:12] == b"WEBP", _webp),
    ):
        if is_this:
            try:
                found = list(sizes(content))
            except IndexError as error:
                raise Damaged(kind) from error
            if not found or not all(width and height for width, height in found):
                raise Damaged(kind)
            return Image(kind, *(max(side) for side in zip(*found, strict=True)))
    return None


def _png(content: bytes) -> Iterator[tuple[int, int]]:
    if content[12:16] == b"IHDR":
        yield _big(content, 16, 4), _big(content, 20, 4)


def _jpeg(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the size of every frame before the first scan."""
    at = 2
    for _ in range(_MOST_BLOCKS):
        if content[at] != 0xFF:
            raise Damaged("jpeg")
        marker = content[at + 1]
        if marker in (_JPEG_SCAN, _JPEG_END):
            return
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _JPEG_WITHOUT_LENGTH:
            at += 2
        else:
            if marker in _JPEG_FRAMES:
                yield _big(content, at + 7, 2), _big(content, at + 5, 2)
            at += 2 + max(2, _big(content, at + 2, 2))
    raise Damaged("jpeg")


def _gif(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the size of the canvas and how far every frame reaches."""
    yield _little(content, 6, 2), _little(content, 8, 2)
    at = 13 + _gif_colors(content[10])
    for _ in range(_MOST_BLOCKS):
        if content[at] == _GIF_END:
            return
        if content[at] == _GIF_FRAME:
            left, top, width, height = (_little(content, at + n, 2) for n in (1, 3, 5, 7))
            yield left + width, top + height
            at += 11 + _gif_colors(content[at + 9])
        elif content[at] == _GIF_EXTENSION:
            at += 2
        else:
            raise Damaged("gif")
        while size := content[at]:
            at += 1 + size
        at += 1
    raise Damaged("gif")


def _gif_colors(flags: int) -> int:
    """Return the bytes of the color table that these flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp(content: bytes) -> Iterator[tuple[int, int]]:
    match content[12:16]:
        case b"VP8X":
            yield _little(content, 24, 3) + 1, _little(content, 27, 3) + 1
        case b"VP8 " if content[23:26] == b"\x9d\x01\x2a":
            yield _little(content, 26, 2) & 0x3FFF, _little(content, 28, 2) & 0x3FFF
        case b"VP8L" if content[20] == 0x2F:
            sides = _little(content, 21, 4)
            yield (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1


def _big(content: bytes, at: int, size: int) -> int:
    return int.from_bytes(_slice(content, at, size), "big")


def _little(content: bytes, at: int, size: int) -> int:
    return int.from_bytes(_slice(content, at, size), "little")


def _slice(content: bytes, at: int, size: int) -> bytes:
    if at + size > len(content):
        raise IndexError
    return content[at : at + size]
