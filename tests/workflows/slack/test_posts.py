"""Reading the text of posts."""

import time

from workflows.slack import messages


def test_the_users_that_a_text_names_are_found():
    assert messages.tagged("<@U1>: ask <@U2|carl> or <!here>, not @U3") == {"U1", "U2"}


def test_a_text_full_of_unclosed_tags_is_read_in_one_pass():
    began = time.thread_time()
    assert not messages.tagged("<@U|" * 30_000)
    assert time.thread_time() - began < 1  # milliseconds; a pass from each would be half a minute
