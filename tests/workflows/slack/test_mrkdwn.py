"""Markdown of models becomes mrkdwn that people can read, and nobody is mentioned."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.demo_slack.block_kit import violations
from workflows import wording
from workflows.slack.block_kit import sections
from workflows.slack.mrkdwn import from_markdown


@pytest.mark.case("U10")
@pytest.mark.parametrize(
    ("markdown", "mrkdwn"),
    [
        ("# The *fix*", "The *fix*"),
        ("## Why", "*Why*"),
        ("## Why **not**", "*Why not*"),
        ("a **bold** and __very bold__ word", "a *bold* and *very bold* word"),
        ("**__main__**, shop/__main__.py", "*__main__*, shop/__main__.py"),
        ("from shop/__main__.py to lib/__init__.py", "from shop/__main__.py to lib/__init__.py"),
        ("# Why __init__ and __name__", "*Why __init__ and __name__*"),
        ("- one\n  * two\n+ three", "• one\n  • two\n• three"),
        ("see https://a.example/b?c=1.", "see <https://a.example/b?c=1>."),
        ("[the docs](https://a.example)", "the docs (<https://a.example>)"),
        (
            "[https://good.example](https://evil.example)",
            "https://good.example (<https://evil.example>)",
        ),
        ("`**not bold** https://a.example`", "`**not bold** https://a.example`"),
        ("```python\n# not a heading\n- x\n```", "```\n# not a heading\n- x\n```"),
        ("```one line``` and **bold**", "```one line``` and **bold**"),
        ("2 * 3 * 4, a_b_c, 5 > 4", "2 * 3 * 4, a_b_c, 5 &gt; 4"),
        ("שלום **עולם** 👋", "שלום *עולם* 👋"),
        ("<https://a.example>", "&lt;<https://a.example>&gt;"),
    ],
)  # fmt: skip
def test_markdown_becomes_mrkdwn(markdown: str, mrkdwn: str):
    assert from_markdown(wording.escape(markdown)) == mrkdwn


@pytest.mark.case("U10")
@pytest.mark.parametrize("mention", ["<@U1>", "<!channel>", "<!subteam^S1>", "<#C1>", "@here"])
def test_nobody_is_mentioned(mention: str):
    blocks = sections(wording.answer(f"hello {mention}"))
    assert (
        f"hello {mention}".replace("<", "&lt;").replace(">", "&gt;") in (blocks[0]["text"]["text"])
    )
    assert blocks[0]["text"]["verbatim"]


@pytest.mark.case("U10")
@pytest.mark.parametrize(
    "text",
    [
        "x" * 10_900,
        "https://a.b " * 900,
        "```\n" + "code\n" * 2000 + "```",
        "&" * 2_000,
        "👩‍👩‍👧‍👦" * 900,
        "\u202e" + "שלום " * 2_000,
        "- item\n" * 1_500,
    ],
)
def test_blocks_of_long_texts_are_within_slacks_limits(text: str):
    blocks = sections(wording.answer(text))
    assert blocks
    assert violations(blocks) == []


@given(st.text(alphabet="*_`#-[](). \nahttps:/&<>@!😀", max_size=6_000))
def test_blocks_of_any_text_are_within_slacks_limits(text: str):
    blocks = sections(wording.answer(text))
    assert violations(blocks) == []
    shown = "".join(block["text"]["text"] for block in blocks)
    assert "<@" not in shown
    assert "<!" not in shown


def test_a_text_that_does_not_fit_has_no_blocks():
    assert sections("x" * 11_001) == []
