"""What the bot says, to the letter where others rely on it."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from coding_tasks.bounds import Bounds
from workflows import wording

NAMES = {"bot_name": "Tollgate", "billing_url": "https://billing.example.com/credits"}
RESET = datetime(2026, 12, 1, tzinfo=UTC)


def test_the_denial_says_when_credits_reset_and_where_to_top_up():
    assert wording.denial("limit_reached", RESET, **NAMES) == (
        "Your team has used its monthly Tollgate AI credits. They reset on 2026-12-01. "
        "Top up at https://billing.example.com/credits to continue."
    )


def test_the_middle_sentence_is_left_out_where_there_is_no_reset_time():
    assert wording.denial("limit_reached", None, **NAMES) == (
        "Your team has used its monthly Tollgate AI credits. "
        "Top up at https://billing.example.com/credits to continue."
    )


def test_the_reset_date_is_the_day_in_utc():
    east = timezone(timedelta(hours=9))
    assert "2026-11-30" in wording.denial(
        "limit_reached", datetime(2026, 12, 1, 8, tzinfo=east), **NAMES
    )


def test_each_reason_has_a_first_sentence_of_its_own():
    reasons = [
        "limit_reached",
        "insufficient_remaining",
        "organization_inactive",
        "project_cap_reached",
        "user_cap_reached",
        "run_cap_reached",
        "some reason of the future",
    ]
    texts = [wording.denial(reason, RESET, **NAMES) for reason in reasons]
    assert len({text.split(". ")[0] for text in texts}) == len(reasons)
    assert all(" They reset on 2026-12-01. " in text for text in texts)


@pytest.mark.parametrize("reason", ["limit_reached", "insufficient_remaining", "set_by_hand", None])
def test_a_team_without_credits_is_told_where_to_top_up(reason):
    said = wording.denial(reason, RESET, **NAMES)
    assert said.endswith("Top up at https://billing.example.com/credits to continue.")


@pytest.mark.parametrize(
    ("reason", "who"),
    [
        ("user_cap_reached", "Ask an administrator of your team to raise your share."),
        ("project_cap_reached", "Ask an administrator of your team to raise the project's share."),
        ("run_cap_reached", "ask an administrator of your team to raise what one task may use."),
    ],
)
def test_whom_no_top_up_helps_is_told_who_can_help_instead(reason, who):
    for said in (
        wording.denial(reason, RESET, **NAMES),
        wording.denial(reason, None, half_way=True, **NAMES),
    ):
        assert said.endswith(who)
        assert "Top up" not in said


@pytest.mark.parametrize("cap", ["user_cap_reached", "project_cap_reached", "run_cap_reached"])
def test_too_little_left_of_a_cap_is_not_blamed_on_the_team(cap):
    said = wording.denial("insufficient_remaining", RESET, cap=cap, **NAMES)
    assert "Your team has too few" not in said
    assert "Top up" not in said


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        ("UTC", "They reset on 2026-11-30."),
        ("Europe/Berlin", "They reset on 2026-12-01 (Europe/Berlin)."),
        ("America/New_York", "They reset on 2026-11-30 (America/New_York)."),
    ],
)
def test_the_reset_date_is_the_day_in_the_limits_own_zone(zone, told):
    midnight_in_berlin = datetime(2026, 11, 30, 23, tzinfo=UTC)
    assert told in wording.denial("limit_reached", midnight_in_berlin, time_zone=zone, **NAMES)
    names = {"credits_name": "credits", "billing_url": "https://b"}
    assert told in wording.credits_running_low(80, midnight_in_berlin, time_zone=zone, **names)
    status = {"remaining": "1", "denial_text": None, "bot_name": "Bot"}
    assert told in wording.credits_status(resets_at=midnight_in_berlin, time_zone=zone, **status)


def test_a_repository_that_is_too_big_is_told_what_would_not_be():
    assert wording.repository_too_big("acme/deep", Bounds()) == (
        "acme/deep is too big for me. I take up to 100,000 files and folders with 500 MB in all, "
        "nested up to 100 deep, with paths of up to 1,000 bytes."
    )


def test_a_denial_half_way_says_so_and_speaks_of_going_on():
    said = wording.denial(
        "insufficient_remaining", None, bot_name="Bot", billing_url="https://b", half_way=True
    )
    assert said.startswith(
        "I had to stop half-way. Your team has too few Bot AI credits left to go on."
    )


def test_a_block_written_by_hand_without_a_reason_gets_the_usual_sentence():
    by_hand = wording.denial("set_by_hand", RESET, **NAMES)
    assert by_hand == wording.denial("limit_reached", RESET, **NAMES)


def test_no_reason_at_all_gets_the_sentence_of_an_unknown_one():
    assert wording.denial(None, RESET, **NAMES) == wording.denial("strange", RESET, **NAMES)


@pytest.mark.parametrize("text", ["<!channel>", "<@U2>", "<https://evil.example|your bank>"])
def test_a_models_text_pings_nobody_and_links_nothing(text):
    assert not set("<>") & set(wording.answer(f"hello {text}"))


def test_an_answer_keeps_its_text_readable():
    assert wording.answer(" a < b && b > c\n") == "a &lt; b &amp;&amp; b &gt; c"


def test_an_answer_holds_nothing_that_a_database_refuses():
    assert wording.answer("a\0b\ud800c") == "ab?c"


def test_an_empty_answer_still_says_something():
    assert wording.answer(" \n") == "I have nothing to answer."


def test_names_from_people_are_escaped_in_sentences():
    assert "<!here>" not in wording.repository_unavailable("<!here>/x")
    assert "<!here>" not in wording.no_access_without_membership(
        "U1", bot_name="Tollgate", organization="<!here>"
    )
    assert "<!here>" not in wording.denial(
        "limit_reached", None, bot_name="<!here>", billing_url="https://b.example"
    )


def test_the_status_is_the_denial_when_the_team_is_limited():
    denial = wording.denial("limit_reached", RESET, **NAMES)
    status = wording.credits_status(
        remaining="0", denial_text=denial, resets_at=RESET, bot_name="Tollgate"
    )
    assert status == denial


def test_the_status_names_what_is_left_and_the_reset_day():
    status = wording.credits_status(
        remaining="12.5", denial_text=None, resets_at=RESET, bot_name="Tollgate"
    )
    assert status == "Your team has 12.5 Tollgate AI credits left. They reset on 2026-12-01."


def test_the_status_of_a_team_without_a_limit_says_so():
    status = wording.credits_status(
        remaining=None, denial_text=None, resets_at=None, bot_name="Tollgate"
    )
    assert status == "Your team's Tollgate AI credits have no limit."
