"""The verdict over a round of the whole system finds each kind of fault."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.fakes import BOT_USER, FakeSlack
from tests.soak.people import CHANNEL, Post, Thread
from tests.soak.provider import Charge
from tests.soak.verdict import Booked, Verdict, judge_money, judge_threads, read_ledger

CHARGES = [Charge(("#m1",), Decimal("0.02"), True), Charge((), Decimal("0.03"), True)]
LEDGER = [Booked(Decimal("0.02"), False), Booked(Decimal("0.03"), False)]
COLUMNS = "uuid,kind,adjusts,cost_usd,is_estimated\n"


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    slack = FakeSlack()
    yield slack
    slack.slack.database.close()


def money(charges: list[Charge], ledger: list[Booked], allotted: int = 100) -> list[str]:
    verdict = Verdict()
    judge_money(verdict, charges, ledger, Decimal(allotted))
    return verdict.faults


def said(slack: FakeSlack, *texts: str, charges: tuple[Charge, ...] = ()) -> list[str]:
    """Return the faults of a thread with one mention in which the bot said this."""
    mention = slack.slack.workspace.add_message(CHANNEL, {"user": "U1", "text": "?", "team": "T1"})
    for text in texts:
        reply = {"user": BOT_USER, "bot_id": "B1", "text": text, "thread_ts": mention["ts"]}
        slack.slack.workspace.add_message(CHANNEL, reply)
    thread = Thread(mention["ts"], "U1", [Post("#m1", mention["ts"], acknowledged=True)])
    verdict = Verdict()
    judge_threads(verdict, slack, [thread], charges)
    return verdict.faults


def test_matching_records_have_no_fault() -> None:
    assert money(CHARGES, LEDGER) == []


def test_an_event_booked_twice_is_found() -> None:
    assert "0.03 was booked 1 times more" in money(CHARGES, [*LEDGER, LEDGER[1]])[0]


def test_a_lost_call_is_found() -> None:
    assert "1 calls have no event" in money(CHARGES, LEDGER[:1])[0]


def test_an_estimate_matches_a_call_if_it_is_at_least_its_cost() -> None:
    assert money(CHARGES, [LEDGER[0], Booked(Decimal("0.05"), True)]) == []
    assert "only $" in money(CHARGES, [LEDGER[0], Booked(Decimal("0.01"), True)])[0]


def test_an_overrun_is_found() -> None:
    assert "overrun" in money(CHARGES, LEDGER, allotted=5)[0]


def test_corrections_change_the_cost_of_their_event() -> None:
    rows = "a,usage,,0.05,True\nb,correction,a,-0.02,False\nc,usage,,0.01,True\n"
    assert read_ledger(COLUMNS + rows) == [
        Booked(Decimal("0.03"), False),
        Booked(Decimal("0.01"), True),
    ]


def test_one_answer_or_one_denial_is_no_fault(slack: FakeSlack) -> None:
    assert said(slack, "answer to #m1: word") == []
    assert said(slack, "Your team has used its monthly AI credits.") == []


def test_silence_is_found(slack: FakeSlack) -> None:
    assert "no answer" in said(slack)[0]


def test_a_second_answer_is_found(slack: FakeSlack) -> None:
    assert "answered 2 times" in said(slack, *["answer to #m1: word"] * 2)[0]


def test_a_second_denial_is_found(slack: FakeSlack) -> None:
    assert "too many messages" in said(slack, "Top up.", "Top up.")[0]


def test_blaming_a_provider_that_answered_is_found(slack: FakeSlack) -> None:
    blame = "The AI provider did not answer, even after several attempts."
    assert "blames" in said(slack, blame)[0]
    failure = Charge(("#m1",), Decimal(0), answered=False)
    assert said(slack, blame, charges=(failure,)) == []
