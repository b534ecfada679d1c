"""Which agent a mention asks for, and what is left of its request."""

import pytest

from coding_tasks.agents.choice import choose_agent

NAMES = ("small", "claude", "codex", "mini", "aider")


@pytest.mark.parametrize(
    ("text", "agent", "request_text"),
    [
        ("with codex, add a flag", "codex", "add a flag"),
        ("with Codex: add a flag", "codex", "add a flag"),
        ("with codex add a flag", "codex", "add a flag"),
        ("Using Claude Code, add a flag", "claude", "add a flag"),
        ("add a flag with codex", "codex", "add a flag"),
        ("add a flag, with codex.", "codex", "add a flag."),
        ("add a flag with codex, please", "codex", "add a flag"),
        ("add a flag (with codex)", "codex", "add a flag"),
        ("add a flag using mini-swe-agent!", "mini", "add a flag!"),
        ("add a flag with the codex CLI", None, "add a flag with the codex CLI"),
        ("add a flag with codex cli", "codex", "add a flag"),
        ("add a flag with codex\nand a test", "codex", "add a flag\nand a test"),
        ("add a flag with codex. Also a test.", "codex", "add a flag. Also a test."),
        ("with codex", "codex", ""),
        ("with aider, add a flag", "aider", "add a flag"),
        ("with codex, do it with claude", "codex", "do it with claude"),
    ],
)
def test_takes_the_words_out_of_the_request(
    text: str, agent: str | None, request_text: str
) -> None:
    assert choose_agent(text, NAMES) == (agent, request_text)


@pytest.mark.parametrize(
    "text",
    [
        "add a flag",
        "make it work with codex files and others",
        "with care, add a flag",
        "add a flag with gemini",
        "add pagination with minimal effort",
        "explain `with codex`",
        "compare codex with claude's API",
        "withcodex add a flag",
        "",
    ],
)
def test_leaves_other_requests_as_they_are(text: str) -> None:
    assert choose_agent(text, NAMES) == (None, text)


def test_only_known_agents_can_be_chosen() -> None:
    assert choose_agent("with codex, go", ("small",)) == (None, "with codex, go")
    assert choose_agent("with claude code, go", ("small",)) == (None, "with claude code, go")
    assert choose_agent("with codex, go", ()) == (None, "with codex, go")


def test_a_long_text_takes_no_long_time() -> None:
    text = "with " * 20_000 + "(," * 20_000
    assert choose_agent(text, NAMES) == (None, text)
