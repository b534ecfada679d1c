"""Splitting long texts into messages."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.slack.splitting import length, split

WORDS = st.sampled_from(
    [
        "word",
        "`code with spaces`",
        "&amp;",
        "&lt;b&gt;",
        ":thumbsup:",
        "a" * 130,
        "\n",
        "\n\n",
        " ",
        "```\n",
        "\n```",
        "é",
        "👩‍💻",
        "👍🏽",
        "🇩🇪🇫🇷",
        "e\u0301" * 60,
        "x" * 700,
    ]
)


def bare(text: str) -> str:
    """Return the text without white space and without the fences of code blocks."""
    return re.sub(r"\s|```", "", text)


@given(st.lists(WORDS, max_size=120).map("".join), st.integers(100, 400))
def test_nothing_is_lost_and_every_part_is_short_enough_and_whole(text, at_most):
    parts = split(text, at_most)
    assert bare("".join(parts)) == bare(text)
    for part in parts:
        assert length(part) <= at_most
        assert part.strip() or not text.strip()
        if len(parts) > 1:
            assert part.count("```") % 2 == 0 or part is parts[-1] or text.count("```") % 2


def test_a_paragraph_that_is_carried_over_still_fits_with_what_follows():
    text = "\n\nwordword\n" + "é" * 92
    assert split(text, 100) == ["wordword", "é" * 92]


def test_a_text_that_fits_is_left_as_it_is():
    assert split("\n a `b` \n", 100) == ["\n a `b` \n"]


def test_text_is_cut_between_paragraphs_if_possible():
    first, second = "one " * 20, "two " * 20
    assert split(f"{first}\n\n{second}\nend", 150) == [first, f"{second}\nend"]


def test_a_code_block_is_closed_and_opened_again():
    code = "\n".join(f"    line {number}" for number in range(30))
    parts = split(f"Look:\n```\n{code}\n```\nThat is all.", 150)
    assert len(parts) > 2
    for part in parts:
        assert part.count("```") % 2 == 0
    assert parts[1].startswith("```\n    line")
    assert parts[-1].endswith("```\nThat is all.")


def test_a_code_block_that_ends_with_a_part_leaves_no_empty_one_behind():
    code = "\n".join(["x" * 20] * 4)
    for more in range(20):
        parts = split(f"```\n{code}\n{'y' * more}\n```\n{'z' * 80}", 100)
        assert not any(re.search(r"```\n*```", part) for part in parts)


@pytest.mark.parametrize("shift", range(12))
@pytest.mark.parametrize(
    "unit", ["&amp;", ":thumbsup:", "👩‍💻", "👍🏽", "🇩🇪", "e\u0301", "😀", "`a b` "], ids=ascii
)
def test_characters_displayed_as_one_are_not_cut(unit, shift):
    parts = split("x" * shift + unit * 200, 120)
    assert len(parts) > 1
    for part in parts:
        assert f"{part.lstrip('x')} ".replace(unit, "").strip() == ""


@pytest.mark.parametrize("shift", range(5))
def test_surrogate_pairs_count_as_two(shift):
    parts = split("x" * shift + "😀" * 500, 120)
    assert all(len(part.encode("utf-16-le")) // 2 <= 120 for part in parts)


def test_a_line_of_code_keeps_the_space_it_begins_with():
    parts = split("```\n" + "\n".join(["        indented"] * 20) + "\n```", 100)
    assert all(
        line.startswith("        indented")
        for part in parts
        for line in part.split("\n")
        if "```" not in line
    )
