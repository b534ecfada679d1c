"""What people asked for, as they typed it."""

import time

import pytest

from projects.models import SlackWorkspace
from workflows.models import Mention
from workflows.requests import STOP_WORDS, is_bare, is_stop, is_stop_for_others, request_text


def asked(text: str) -> str:
    return request_text(Mention(workspace=SlackWorkspace(bot_user_id="UBOT"), text=text))


@pytest.mark.parametrize("tag", ["<@UBOT>", "<@UBOT|tollgate>"])
def test_the_mention_of_the_bot_is_left_out_and_that_of_others_is_not(tag):
    assert asked(f"{tag} ask <@UBOT2> about it") == "ask <@UBOT2> about it"


def test_links_are_read_as_their_words_and_what_slack_escaped_as_it_was():
    linked = "see <https://example.com/a|the page>, <https://example.com> &amp; a &lt;b&gt;"
    assert asked(linked) == "see the page, https://example.com & a <b>"


@pytest.mark.parametrize("never_ends", ["<ssh", "<ssh|", "<@UBOT|"])
def test_a_text_full_of_unclosed_links_is_read_in_one_pass(never_ends):
    began = time.thread_time()
    asked(never_ends * 30_000)
    assert time.thread_time() - began < 1  # milliseconds; a pass from each would be half a minute


# --- Messages without a text, and orders to stop -------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "<@UBOT>",
        "<@UBOT|tollgate> <@U2> <!here> <#C1|general>",
        "?!",
        "👍🏽",
        ":wave:",
        ":wave::skin-tone-2:",
        "*_~`>&gt;",
        "&amp;",
        "\u200b",
        "…",
        "——",
    ],
)
def test_tags_emoji_and_punctuation_say_nothing(text):
    assert is_bare(text)
    assert not is_stop(text)


@pytest.mark.parametrize(
    "text", ["hi", "1", "修理", "<https://example.com>", "at 10:30:45", "<@UBOT> é"]
)
def test_a_word_a_number_or_an_address_says_something(text):
    assert not is_bare(text)


@pytest.mark.parametrize("word", sorted(STOP_WORDS))
@pytest.mark.parametrize(
    "form", ["{}", "{}!", " {} .", "*{}*", "<@UBOT> {}", ":no_entry: {}", "please {} it now, {}!"]
)
def test_a_stop_word_is_recognized_in_every_form(word, form):
    for written in (word, word.upper(), word.capitalize()):
        assert is_stop(form.format(written, written))


@pytest.mark.parametrize(
    "text",
    [
        "stop the server",
        "don't stop",
        "please",
        "why did it stop?",
        "stopping",
        "nonstop",
        "cancel the order",
        "<https://example.com/stop>",
        "stop and fix the tests",
        "now",
        "",
        "stop " * 1000,
    ],
)
def test_messages_that_say_more_or_less_than_stop_are_not_orders(text):
    assert not is_stop(text)


@pytest.mark.parametrize("never_ends", [":", "<@", "<!", "<!here", "&", ":a", "*"])
def test_a_text_full_of_unclosed_markup_is_judged_quickly(never_ends):
    before = time.perf_counter()
    is_bare(never_ends * 20_000)
    is_stop(never_ends * 20_000)
    is_stop_for_others(never_ends * 20_000)
    assert time.perf_counter() - before < 1
