"""What the bot says, word for word where others rely on it."""

from datetime import UTC, datetime

import pytest

from coding_tasks.repositories.bounds import Bounds
from workflows import wording

RESET = datetime(2026, 12, 1, tzinfo=UTC)


def test_the_message_about_a_big_repository_names_the_bounds():
    assert wording.repository_too_big("acme/deep", Bounds()) == (
        "acme/deep is too big for me. I take up to 100,000 files and folders with 500 MB in all, "
        "nested up to 100 deep, with paths of up to 1,000 bytes."
    )


@pytest.mark.parametrize("text", ["<!channel>", "<@U2>", "<https://evil.example|your bank>"])
def test_a_models_text_pings_nobody_and_links_nothing(text):
    assert not set("<>") & set(wording.answer(f"hello {text}"))


def test_an_answer_keeps_its_text_readable():
    assert wording.answer(" a < b && b > c\n") == "a &lt; b &amp;&amp; b &gt; c"


def test_an_answer_has_no_characters_that_a_database_refuses():
    assert wording.answer("a\0b\ud800c") == "ab?c"


def test_an_empty_answer_still_says_something():
    assert wording.answer(" \n") == "I have no answer."


def test_names_from_people_are_escaped_in_sentences():
    assert "<!here>" not in wording.repository_unavailable("<!here>/x")
    assert "<!here>" not in wording.no_access_without_membership(
        "U1", bot_name="Tollgate", organization="<!here>"
    )


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        ("UTC", "They reset on 2026-11-30."),
        ("Europe/Berlin", "They reset on 2026-12-01 (Europe/Berlin)."),
        ("America/New_York", "They reset on 2026-11-30 (America/New_York)."),
    ],
)
def test_reset_date_is_the_day_in_the_limits_time_zone(zone, told):
    reset = {"resets_at": datetime(2026, 11, 30, 23, tzinfo=UTC), "time_zone": zone}
    names = {"credits_name": "credits", "billing_url": "https://b"}
    assert told in wording.credits_running_low(80, **reset, **names)
    assert told in wording.credits_status(remaining="1", bot_name="Bot", **reset)


def test_the_status_names_what_is_left_and_the_reset_day():
    status = wording.credits_status(remaining="12.5", resets_at=RESET, bot_name="Tollgate")
    assert status == "Your team has 12.5 Tollgate AI credits left. They reset on 2026-12-01."


def test_the_status_of_a_team_without_a_limit_says_so():
    status = wording.credits_status(remaining=None, resets_at=None, bot_name="Tollgate")
    assert status == "Your team's Tollgate AI credits have no limit."
