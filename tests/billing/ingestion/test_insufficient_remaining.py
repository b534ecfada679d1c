"""When the gateway reports that too little is left for a call, every gate refuses."""

from dataclasses import replace
from decimal import Decimal

import pytest
from django.db import OperationalError

from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.decisions.burndown import Grant
from billing.decisions.decision import State, decide
from billing.ingestion import insufficient_remaining
from billing.retries import DatabaseBusy
from quota import gate
from quota.reasons import Reason
from quota.resources import AI_CREDITS
from tests.billing.decisions.test_decision import DAY, NOW, PERIOD_END, PERIOD_START, snapshot
from tests.billing.world import CREDIT, SERVICE, book, published, usage_event

pytestmark = pytest.mark.django_db
PATH = "/api/insufficient_remaining/"


@pytest.fixture
def nearly_out(project, settings):
    """A project with 0.4 of 12.4 credits left, while starting work needs 1."""
    settings.START_CREDITS = Decimal(1)
    set_limit(project.organization, AI_CREDITS, 12_400_000)
    book(usage_event(project, "0.10"))
    return project


@pytest.fixture
def tell(client):
    def post(project, remaining_micro, **headers):
        body = {
            "organization_id": str(project.organization_id),
            "resource": "ai_credits",
            "remaining_micro": remaining_micro,
        }
        return client.post(PATH, body, content_type="application/json", **(headers or SERVICE))

    return post


def test_every_gate_refuses_until_more_is_left(nearly_out, tell):
    assert not gate.check(nearly_out).limited

    assert tell(nearly_out, 400_000).json() == {"limited": True}

    verdict = gate.check(nearly_out)
    assert (verdict.limited, verdict.reason) == (True, "insufficient_remaining")
    assert verdict.limited_until == verdict.resets_at
    assert verdict.remaining_micro == 400_000
    grant_credits(nearly_out.organization, AI_CREDITS, 5 * CREDIT)
    assert not gate.check(nearly_out).limited


def test_a_remainder_that_suffices_to_start_work_is_not_written_off(nearly_out, tell, settings):
    """Otherwise one oversized call would stop the whole team."""
    settings.START_CREDITS = Decimal("0.4")

    assert tell(nearly_out, 400_000).json() == {"limited": False}
    assert tell(nearly_out, 399_999).json() == {"limited": False}, "more is left than that"
    assert not gate.check(nearly_out).limited


def test_a_single_micro_credit_is_written_off(nearly_out, tell):
    book(usage_event(nearly_out, "0.003333325"))

    assert tell(nearly_out, 1).json() == {"limited": True}


def test_a_remainder_that_was_never_there_limits_nobody(nearly_out, tell):
    grant_credits(nearly_out.organization, AI_CREDITS, 50 * CREDIT)

    assert tell(nearly_out, 400_000).json() == {"limited": False}


def test_a_report_that_nothing_is_left_lifts_nothing(nearly_out, tell):
    tell(nearly_out, 400_000)

    assert tell(nearly_out, 0).json() == {"limited": True}


@pytest.mark.parametrize(
    ("failure", "status"), [(DatabaseBusy("too slow"), 429), (OperationalError("away"), 503)]
)
def test_a_slow_or_unavailable_database_asks_for_a_retry(
    nearly_out, tell, monkeypatch, failure, status
):
    def fail(**report):
        raise failure

    monkeypatch.setattr(insufficient_remaining, "report", fail)
    answer = tell(nearly_out, 400_000)

    assert answer.status_code == status
    assert int(answer["Retry-After"]) >= 1


def test_events_under_way_are_subtracted_from_what_is_left(nearly_out, tell):
    """The gateway has already spent them when it reports."""
    assert tell(nearly_out, 40_000).json() == {"limited": False}

    book(usage_event(nearly_out, "0.003"))

    assert published(nearly_out.organization).reason == "insufficient_remaining"


def test_an_account_without_a_limit_has_no_remainder(project, tell):
    book(usage_event(project))

    assert tell(project, 1).json() == {"limited": False}


def test_only_a_gateway_can_report_and_only_about_existing_accounts(nearly_out, tell, stranger):
    assert tell(nearly_out, 1, HTTP_AUTHORIZATION="Bearer wrong").status_code == 401
    stranger.organization_id = "0b6f7f9e-3c7e-4d50-9f0e-6d1f7a6a3f11"
    assert tell(stranger, 1).status_code == 404
    for nonsense in (None, -1, "much", "5", 5.0, True, 2**63):
        assert tell(nearly_out, nonsense).status_code == 400
    assert not gate.check(nearly_out).limited


def test_the_decision_names_the_reason_and_when_more_is_left():
    little = snapshot(1000, 990, insufficient_micro=10, insufficient_at=NOW)
    decision = decide(little)

    assert (decision.state, decision.reason) == (State.LIMITED, Reason.INSUFFICIENT_REMAINING)
    assert (decision.remaining, decision.limited_until) == (10, PERIOD_END)
    assert decide(replace(little, insufficient_micro=9)).state is State.WARNING
    assert decide(replace(little, is_hard=False)).state is State.WARNING
    assert decide(replace(little, usage={PERIOD_START: 1000})).reason is Reason.LIMIT_REACHED
    too_small, enough = (Grant(1, amount, NOW + DAY) for amount in (1, 10))
    assert (
        decide(replace(little, insufficient_micro=12, grants=[too_small])).limited_until
        == PERIOD_END
    )
    assert decide(replace(little, grants=[enough])).limited_until == NOW + DAY


def test_a_remainder_noted_in_an_earlier_period_is_ignored():
    before = snapshot(1000, 990, insufficient_micro=10, insufficient_at=PERIOD_START - DAY)

    assert decide(before).state is State.WARNING
