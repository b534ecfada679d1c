"""Output is split into the same lines, however it comes."""

from hypothesis import given
from hypothesis import strategies as st

from coding_tasks.sandbox.lines import LineSplitter


def split(chunks: list[bytes], longest: int) -> list[tuple[bytes, bool]]:
    splitter = LineSplitter("stdout", longest)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.end()
    return [(line.data, line.cut) for line in lines]


@given(st.lists(st.text(alphabet="ab\n").map(str.encode)), st.integers(1, 5))
def test_chunks_do_not_matter_and_long_lines_are_cut(chunks, longest):
    parts = b"".join(chunks).split(b"\n")
    if not parts[-1]:
        parts.pop()
    assert split(chunks, longest) == [(part[:longest], len(part) > longest) for part in parts]


def test_a_line_without_an_end_holds_no_more_than_its_bound():
    splitter = LineSplitter("stdout", 1_000)
    for _ in range(1_000):
        splitter.feed(bytes(1_000))
    assert len(splitter._begun) == 1_000
