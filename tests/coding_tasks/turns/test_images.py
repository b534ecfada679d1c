"""What kind of image some bytes are, and how large, without decoding them."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_tasks.turns.images import Damaged, Image, image_of
from tests.image_files import gif, jpeg, png, webp

WHOLE = {
    "png": png(7, 5),
    "jpeg": jpeg((7, 5)),
    "gif": gif(7, 5, (7, 5)),
    "webp simple": webp(b"VP8 ", 7, 5),
    "webp lossless": webp(b"VP8L", 7, 5),
    "webp extended": webp(b"VP8X", 7, 5),
}
each = pytest.mark.parametrize("name", WHOLE)


@each
def test_kind_and_size_are_read_from_the_bytes(name: str) -> None:
    assert image_of(WHOLE[name]) == Image(name.partition(" ")[0], 7, 5)


@each
def test_an_image_that_is_cut_is_damaged_or_still_has_its_size(name: str) -> None:
    whole = WHOLE[name]
    for length in range(12, len(whole)):
        try:
            found = image_of(whole[:length])
        except Damaged:
            continue
        assert found in (None, image_of(whole))
    with pytest.raises(Damaged):
        image_of(whole[:14])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"plain text",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!DOCTYPE html><img src=x onerror=alert(1)>",
        b"%PDF-1.7",
        b"PK\x03\x04",
        b"BM\x00\x00",
        b"II*\x00",
        b"RIFF\x00\x00\x00\x00AVI LIST",
        b"\x00\x00\x00\x20ftypavif",
    ],
)
def test_anything_else_is_no_image(content: bytes) -> None:
    assert image_of(content) is None


def test_a_script_behind_the_words_of_a_gif_is_a_damaged_or_huge_image() -> None:
    with pytest.raises(Damaged):
        image_of(b"GIF89a/*\x00\x00*/=1;alert(1)//" + b"x" * 100)


def test_what_follows_an_image_does_not_count() -> None:
    assert image_of(png(3, 4, tail=b"PK\x03\x04<script>")) == Image("png", 3, 4)


@pytest.mark.parametrize(
    "content",
    [
        jpeg((2, 2), (65_535, 65_535)),
        gif(2, 2, (1, 1), (65_535, 65_535)),
        png(100_000, 1),
        webp(b"VP8X", 16_384, 16_384),
    ],
)
def test_the_largest_size_that_is_stated_counts(content: bytes) -> None:
    found = image_of(content)
    assert found is not None
    assert found.is_too_large


@pytest.mark.parametrize(
    ("width", "height", "too_large"),
    [(8_000, 5_000, False), (8_001, 1, True), (1, 8_001, True), (6_400, 6_400, True)],
)
def test_sides_and_pixels_are_bounded(width: int, height: int, too_large: bool) -> None:
    assert Image("png", width, height).is_too_large is too_large


@pytest.mark.parametrize("content", [jpeg(), jpeg((0, 5)), jpeg((5, 0)), gif(0, 0)])
def test_an_image_without_a_size_is_damaged(content: bytes) -> None:
    with pytest.raises(Damaged):
        image_of(content)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xd8" + b"\xff\xc0\x00\x02" * 900_000,
        b"\xff\xd8" + b"\xff" * 3_000_000,
        gif(2, 2, *[(1, 1)] * 200_000),
    ],
)
def test_a_file_of_nothing_but_headers_is_damaged_before_it_costs_much(content: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Damaged):
            image_of(content)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5_000_000


@given(
    st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF1234WEBP"]),
    st.binary(max_size=300),
)
def test_any_bytes_are_read_to_an_end(beginning: bytes, rest: bytes) -> None:
    try:
        found = image_of(beginning + rest)
    except Damaged:
        return
    assert found is not None
    assert found.width > 0
