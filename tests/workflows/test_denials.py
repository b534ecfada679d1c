"""What denials say, word for word where others rely on it."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from quota.gate import Verdict
from workflows import denials

RESET = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def names(settings) -> None:
    settings.BOT_NAME = "Tollgate"
    settings.BILLING_URL = "https://billing.example.com/credits"


def denial(
    reason: str | None,
    resets_at: datetime | None = RESET,
    *,
    time_zone: str = "UTC",
    cap: str | None = None,
    half_way: bool = False,
) -> str:
    verdict = Verdict(
        resource="ai_credits",
        limited=True,
        state="limited",
        reason=reason,
        limited_until=None,
        resets_at=resets_at,
        remaining_micro=0,
        source="redis",
        time_zone=time_zone,
        cap=cap,
    )
    return denials.text(verdict, half_way=half_way)


def test_says_when_credits_reset_and_where_to_top_up():
    assert denial("limit_reached") == (
        "Your team has used its monthly Tollgate AI credits. They reset on 2026-12-01. "
        "Top up at https://billing.example.com/credits to continue."
    )


def test_leaves_out_the_reset_sentence_without_a_reset_time():
    assert denial("limit_reached", None) == (
        "Your team has used its monthly Tollgate AI credits. "
        "Top up at https://billing.example.com/credits to continue."
    )


def test_reset_date_is_the_day_in_utc():
    east = timezone(timedelta(hours=9))
    assert "2026-11-30" in denial("limit_reached", datetime(2026, 12, 1, 8, tzinfo=east))


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        ("UTC", "They reset on 2026-11-30."),
        ("Europe/Berlin", "They reset on 2026-12-01 (Europe/Berlin)."),
        ("America/New_York", "They reset on 2026-11-30 (America/New_York)."),
    ],
)
def test_reset_date_is_the_day_in_the_limits_time_zone(zone, told):
    midnight_in_berlin = datetime(2026, 11, 30, 23, tzinfo=UTC)
    assert told in denial("limit_reached", midnight_in_berlin, time_zone=zone)


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
    texts = [denial(reason) for reason in reasons]
    assert len({text.split(". ")[0] for text in texts}) == len(reasons)
    assert all(" They reset on 2026-12-01. " in text for text in texts)


@pytest.mark.parametrize("reason", ["limit_reached", "insufficient_remaining", "set_by_hand", None])
def test_a_team_without_credits_is_told_where_to_top_up(reason):
    assert denial(reason).endswith("Top up at https://billing.example.com/credits to continue.")


@pytest.mark.parametrize(
    ("reason", "who"),
    [
        ("user_cap_reached", "Ask an administrator of your team to raise your share."),
        ("project_cap_reached", "Ask an administrator of your team to raise the project's share."),
        ("run_cap_reached", "ask an administrator of your team to raise what one task may use."),
    ],
)
def test_a_reached_cap_names_who_can_help_instead_of_a_top_up(reason, who):
    for said in (denial(reason), denial(reason, None, half_way=True)):
        assert said.endswith(who)
        assert "Top up" not in said


@pytest.mark.parametrize("cap", ["user_cap_reached", "project_cap_reached", "run_cap_reached"])
def test_too_little_left_of_a_cap_is_not_blamed_on_the_team(cap):
    said = denial("insufficient_remaining", cap=cap)
    assert "Your team has too few" not in said
    assert "Top up" not in said


def test_a_denial_half_way_says_so_and_speaks_of_going_on():
    assert denial("insufficient_remaining", None, half_way=True).startswith(
        "I had to stop half-way. Your team has too few Tollgate AI credits left to go on."
    )


def test_a_block_set_by_hand_gets_the_usual_sentence():
    assert denial("set_by_hand") == denial("limit_reached")


def test_no_reason_gets_the_sentence_of_an_unknown_one():
    assert denial(None) == denial("strange")


def test_names_are_escaped(settings):
    settings.BOT_NAME = "<!here>"
    settings.BILLING_URL = "https://b.example/<!here>"
    assert "<!here>" not in denial("limit_reached")
