"""The check that every gate in Django makes."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from django.db import OperationalError
from django.db.models.query import QuerySet
from django.utils import timezone

from quota import caps
from quota.account_state import FAR_FUTURE, AccountState, from_json
from quota.gate import Headroom, QuotaUnknown, check, headroom
from quota.models import SetMember
from quota.published import redis_client as quota_redis
from quota.published.limited_set import expires_at
from quota.published.publication import publish
from quota.resources import AI_CREDITS, MICRO, POSTHOG_CODE_CREDITS
from quota.state import identify, service_snapshot, standings_from_database
from tests.quota.world import LIMITS, Accounts, run_commit_hooks

pytestmark = pytest.mark.django_db


def test_a_limited_project_is_told_why_and_until_when(accounts, project, trusted_redis):
    state = accounts.limit()
    trusted_redis()
    verdict = check(project)
    assert (verdict.limited, verdict.state, verdict.reason) == (True, "limited", "limit_reached")
    assert verdict.limited_until == verdict.resets_at == state.resets_at
    assert (verdict.remaining_micro, verdict.source) == (0, "redis")


@pytest.mark.case("Q8")
def test_verdicts_are_not_cached_between_checks(accounts, project, trusted_redis):
    trusted_redis()
    assert not check(project).limited
    accounts.limit()
    assert check(project).limited
    accounts.allow()
    assert not check(project).limited


def test_each_resource_is_limited_separately(accounts, project, trusted_redis):
    with run_commit_hooks():
        publish([accounts.limited_state(POSTHOG_CODE_CREDITS)])
    trusted_redis()
    assert not check(project, AI_CREDITS).limited
    assert check(project, POSTHOG_CODE_CREDITS).limited


def test_a_block_does_not_limit_another_organization(accounts, project, stranger, trusted_redis):
    accounts.limit()
    trusted_redis()
    assert check(project).limited
    assert not check(stranger).limited


def test_without_the_marker_the_database_answers(accounts, project, trusted_redis, redis_client):
    accounts.limit()
    trusted_redis()
    assert check(project).source == "redis"
    redis_client.flushall()
    verdict = check(project)
    assert (verdict.limited, verdict.source) == (True, "database")


def test_a_dead_redis_neither_opens_the_gate_nor_closes_it(accounts, project, own_redis):
    accounts.limit()
    own_redis.stop()
    verdict = check(project)
    assert (verdict.limited, verdict.source) == (True, "database")
    accounts.allow()
    assert not check(project).limited


def test_a_block_set_by_hand_holds_while_redis_does_not_answer(
    accounts, project, own_redis, stranger, trusted_redis
):
    trusted_redis()
    own_redis.client.zadd(LIMITS, {project.api_token: FAR_FUTURE})
    trusted_redis()  # the reconciler records the block
    own_redis.stop()
    assert check(project).reason == "set_by_hand"
    assert not check(stranger).limited


def test_the_verdict_is_unknown_when_no_store_answers(accounts, project, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OperationalError("the database is down")

    quota_redis.health.failed()
    monkeypatch.setattr(QuerySet, "_fetch_all", fail)
    with pytest.raises(QuotaUnknown):
        check(project)
    with pytest.raises(QuotaUnknown):
        standings_from_database(identify(project))


# --- the server may be another one ---------------------------------------------------------------
def test_after_a_reconnect_the_marker_is_trusted_only_once_older_ones_have_expired(
    accounts, project, own_redis, trusted_redis, monkeypatch
):
    trusted_redis()
    assert check(project).source == "redis"
    own_redis.stop()
    own_redis.start()
    trusted_redis()  # the data is complete, but this process can't know that
    assert check(project).source == "database"
    quota_redis.health._distrusted_until = 0
    assert check(project).source == "redis"


def test_scripts_are_loaded_again_when_the_server_lost_them(
    accounts, project, trusted_redis, redis_client
):
    accounts.limit()
    trusted_redis()
    redis_client.script_flush()
    verdict = check(project)
    assert (verdict.limited, verdict.source) == (True, "redis")


def test_more_connections_to_the_same_server_do_not_count_as_a_reconnect(
    accounts, project, trusted_redis
):
    trusted_redis()
    pool = quota_redis.client().connection_pool
    several = [pool.get_connection() for _ in range(3)]
    for connection in several:
        pool.release(connection)
    assert check(project).source == "redis"


# --- states that are no longer valid -------------------------------------------------------------
@pytest.fixture
def decider(settings, monkeypatch) -> list:
    """Stands in for billing: publishes the states in the list when asked to decide."""
    answers: list[AccountState] = []

    def decide(organization_id, resource):
        with run_commit_hooks():
            publish([state for state in answers if state.resource == resource])

    monkeypatch.setattr("quota.decider._registered", [decide])
    return answers


@pytest.mark.case("D11")
@pytest.mark.parametrize("with_redis", [True, False])
def test_a_new_period_begins_by_itself(accounts, project, trusted_redis, decider, with_redis):
    ended = timezone.now().replace(microsecond=0) - timedelta(seconds=1)
    accounts.limit(limited_until=int(ended.timestamp()), valid_until=ended)
    if with_redis:
        trusted_redis()
    decider.append(accounts.state(AI_CREDITS, usage_micro=0, remaining_micro=2_000 * MICRO))
    decider.append(accounts.state(POSTHOG_CODE_CREDITS, usage_micro=0))
    verdict = check(project)
    assert (verdict.limited, verdict.state) == (False, "ok")
    assert verdict.remaining_micro == 2_000 * MICRO


@pytest.mark.case("D6")
def test_the_end_of_a_grace_limits_by_itself(accounts, project, trusted_redis, decider):
    ended = timezone.now().replace(microsecond=0) - timedelta(seconds=1)
    accounts.allow(state="grace", suspended_until=int(ended.timestamp()), valid_until=ended)
    trusted_redis()
    decider += [accounts.limited_state(AI_CREDITS), accounts.limited_state(POSTHOG_CODE_CREDITS)]
    assert check(project).limited


def test_a_score_expires_at_its_second(accounts, project, trusted_redis):
    state = accounts.limit(valid_until=None)
    trusted_redis()
    ends = state.resets_at
    assert check(project, now=ends - timedelta(microseconds=1)).limited
    assert not check(project, now=ends).limited


@pytest.mark.parametrize(
    ("score", "seconds"),
    [
        (None, None),
        (-1, None),
        (0, 0),
        (0.5, 1),
        (FAR_FUTURE - 1, FAR_FUTURE - 1),
        (FAR_FUTURE, None),
        (float("inf"), None),
    ],
)
def test_a_score_expires_at_its_second_or_never(score, seconds):
    expires = expires_at(score)
    assert (expires and expires.timestamp()) == seconds


def test_a_failed_decision_is_unknown_and_not_a_permission(
    accounts, project, trusted_redis, monkeypatch
):
    def decide(*_account):
        raise RuntimeError("billing is broken")

    monkeypatch.setattr("quota.decider._registered", [decide])
    accounts.allow(valid_until=timezone.now() - timedelta(seconds=1))
    trusted_redis()
    with pytest.raises(QuotaUnknown, match="could not be decided"):
        check(project)


def test_a_decision_that_publishes_no_newer_state_is_unknown(
    accounts, project, trusted_redis, decider
):
    accounts.allow(valid_until=timezone.now() - timedelta(seconds=1))
    trusted_redis()
    with pytest.raises(QuotaUnknown):
        check(project)


def test_billing_decides_about_a_state_that_is_no_longer_valid(organization, project):
    accounts = Accounts(organization)
    accounts.allow(valid_until=timezone.now() - timedelta(seconds=1), version=-1)
    verdict = check(project)
    assert (verdict.limited, verdict.state) == (False, "ok")


# --- enough to start -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"remaining_micro": 2 * MICRO}, False),
        ({"remaining_micro": 2 * MICRO - 1}, True),
        ({"remaining_micro": None, "limit_micro": None}, False),
        ({"remaining_micro": 0, "mode": "soft"}, False),
    ],
)
def test_work_is_not_started_with_too_little_left(
    accounts, project, trusted_redis, settings, fields, refused
):
    settings.START_CREDITS = Decimal(2)
    accounts.allow(**fields)
    trusted_redis()
    verdict = check(project, to_start=True)
    assert verdict.limited is refused
    assert verdict.remaining_micro == fields["remaining_micro"]
    assert verdict.reason == ("insufficient_remaining" if refused else None)
    assert not check(project).limited


def test_what_is_left_is_the_least_that_is_left_of_any_cap(accounts, project, trusted_redis):
    accounts.allow(run_cap_micro=9)
    trusted_redis()
    assert check(project, run_usage_micro=2).remaining_micro == 7


@pytest.mark.parametrize(("left", "cap"), [(0, None), (-1, "run_cap_reached")])
def test_work_is_not_started_with_too_little_left_of_a_cap(
    accounts, project, trusted_redis, settings, left, cap
):
    settings.START_CREDITS = Decimal(2)
    accounts.allow(run_cap_micro=2 * MICRO + left)
    trusted_redis()
    verdict = check(project, to_start=True)
    assert (verdict.limited, verdict.cap) == (cap is not None, cap)


def test_work_goes_on_beyond_a_projects_cap_until_the_sorted_set_limits_it(
    accounts, project, trusted_redis, monkeypatch
):
    trusted_redis()
    cap = SimpleNamespace(scope=caps.PROJECT.value, remaining_micro=-5)
    monkeypatch.setattr(caps, "in_force", lambda *_args: [cap])
    verdict = check(project)
    assert (verdict.limited, verdict.remaining_micro) == (False, -5)


def test_a_grace_starts_work_with_nothing_left(accounts, project, trusted_redis):
    ends = int(timezone.now().timestamp()) + 600
    accounts.allow(state="grace", suspended_until=ends, remaining_micro=0)
    trusted_redis()
    assert not check(project, to_start=True).limited


def test_an_account_that_was_never_decided_is_unknown_and_not_limited(project):
    verdict = check(project, to_start=True)
    assert (verdict.limited, verdict.state, verdict.remaining_micro) == (False, "unknown", None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Headroom("limit_reached", 750 * MICRO)),
        ({"remaining_micro": None, "limit_micro": None}, None),
        ({"mode": "soft"}, None),
        ({"state": "grace", "suspended_until": FAR_FUTURE}, None),
        ({"run_cap_micro": 7}, Headroom("run_cap_reached", 7)),
        ({"run_cap_micro": 900 * MICRO}, Headroom("limit_reached", 750 * MICRO)),
        ({"run_cap_micro": 7, "mode": "soft"}, Headroom("run_cap_reached", 7)),
    ],
)
def test_the_headroom_is_what_a_new_run_would_use_up_first(
    accounts, project, trusted_redis, fields, expected
):
    accounts.allow(**fields)
    trusted_redis()
    assert headroom(project) == expected


def test_an_account_that_was_never_decided_has_no_headroom(project):
    assert headroom(project) is None


# --- the gateway's share -------------------------------------------------------------------------
def test_every_group_gets_the_same_remainder_plus_its_own_bookings(accounts, project):
    accounts.allow(allotment_micro=100, booked={"a:1": 30, "b:2": 20})
    shares = {
        group: service_snapshot(project, group)[AI_CREDITS] for group in ("a:1", "b:2", "c:3")
    }
    left = {
        group: share["allotment_micro"] - share["booked_micro"] for group, share in shares.items()
    }
    assert left == {"a:1": 50, "b:2": 50, "c:3": 50}
    booked = {group: share["booked_micro"] for group, share in shares.items()}
    assert booked == {"a:1": 30, "b:2": 20, "c:3": 0}
    assert shares["c:3"]["valid_until"] == accounts.period_end.isoformat()


@pytest.mark.parametrize("reader", ["in_force", "for_gateway"])
def test_what_is_left_is_unknown_if_the_caps_cannot_be_read(
    accounts, project, trusted_redis, monkeypatch, reader
):
    def fail(*_args):
        raise OperationalError("away")

    trusted_redis()
    monkeypatch.setattr(caps, reader, fail)
    with pytest.raises(QuotaUnknown, match="caps"):
        check(project) if reader == "in_force" else service_snapshot(project, "a:1")


def test_a_group_learns_of_a_block_set_by_hand_before_it_is_recorded(
    accounts, project, redis_client
):
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE})
    assert service_snapshot(project, "a:1")[AI_CREDITS]["limited"]
    assert SetMember.objects.get(origin=SetMember.Origin.BY_HAND).limited_until == FAR_FUTURE


def test_a_group_is_answered_from_the_database_while_redis_does_not_answer(
    accounts, project, own_redis
):
    accounts.allow(allotment_micro=100)
    own_redis.stop()
    assert service_snapshot(project, "a:1")[AI_CREDITS]["allotment_micro"] == 100


def test_nothing_is_allotted_to_a_group_before_the_first_decision(project):
    assert service_snapshot(project, "a:1")[AI_CREDITS] == {
        "limited": False,
        "account": f"{project.organization_id}:ai_credits",
        "booked_micro": 0,
        "valid_until": None,
        "ledger_epoch": "",
        "version": 0,
    }


def test_a_state_is_the_same_after_writing_and_reading_it(accounts):
    state = accounts.limited_state(booked={"a:1": 2**60})
    assert from_json(state.to_json()) == state
    assert from_json(replace(state, valid_until=None).to_json()).valid_until is None


@pytest.mark.parametrize(
    "fields", [{"resource": "unknown"}, {"limited": True, "limited_until": None}]
)
def test_an_invalid_state_is_rejected(accounts, fields):
    with pytest.raises(ValueError):
        replace(accounts.state(), **fields)
