"""What a person asked for, as they typed it."""

import time

import pytest

from projects.models import SlackWorkspace
from workflows.models import Mention
from workflows.requests import request_text


def asked(text: str) -> str:
    return request_text(Mention(workspace=SlackWorkspace(bot_user_id="UBOT"), text=text))


@pytest.mark.parametrize("tag", ["<@UBOT>", "<@UBOT|tollgate>"])
def test_the_mention_of_the_bot_is_left_out_and_that_of_others_is_not(tag):
    assert asked(f"{tag} ask <@UBOT2> about it") == "ask <@UBOT2> about it"


def test_links_are_read_as_their_words_and_what_slack_escaped_as_it_was():
    linked = "see <https://example.com/a|the page>, <https://example.com> &amp; a &lt;b&gt;"
    assert asked(linked) == "see the page, https://example.com & a <b>"


@pytest.mark.parametrize("never_ends", ["<ssh", "<ssh|", "<@UBOT|"])
def test_a_text_full_of_what_never_ends_is_read_in_one_pass(never_ends):
    began = time.thread_time()
    asked(never_ends * 30_000)
    assert time.thread_time() - began < 1  # milliseconds; a pass from each would be half a minute
