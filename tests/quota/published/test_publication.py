"""Publishing: rows, sorted sets and the change feed after each decision."""

import logging
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from projects.change_feed import Change
from projects.models import Project
from projects.tokens import generate_project_api_token
from quota.account_state import FAR_FUTURE
from quota.gate import check
from quota.models import QuotaState, SetMember
from quota.published import delta
from quota.published import redis_client as redis_client_module
from quota.published.amounts import PublishedAmount
from quota.published.limited_set import Entry, published_key
from quota.published.mismatches import find_mismatches
from quota.published.publication import publish, republish_project
from quota.resources import AI_CREDITS, MICRO
from tests.quota.world import LIMITS, SUSPENDED, HeldCommits, run_commit_hooks

pytestmark = pytest.mark.django_db


@pytest.fixture
def other_project(project) -> Project:
    return Project.objects.create(organization=project.organization, name="Other")


@pytest.fixture
def feed(accounts):
    """Return a function that gets the changes in the feed since the fixtures were made."""
    start = Change.objects.count()

    def _feed() -> list[dict]:
        return [row.payload for row in Change.objects.order_by("version")[start:]]

    return _feed


def publish_now(*states) -> None:
    with run_commit_hooks():
        publish(states)


def entry(redis_client, project) -> Entry | None:
    return Entry.parse(redis_client.hget(published_key(AI_CREDITS), project.api_token))


def test_accounts_can_be_sorted_by_an_amount_of_their_published_states(accounts, stranger):
    accounts.allow(usage_micro=7)
    used = PublishedAmount("document", name="usage_micro")
    rows = QuotaState.objects.filter(resource=AI_CREDITS).annotate(used=used).order_by("used")
    assert list(rows.values_list("used", flat=True)) == [7, 1_250 * MICRO]


# --- rows and scores -----------------------------------------------------------------------------
@pytest.mark.case("D7")
def test_a_block_reaches_every_project_of_the_organization_and_nobody_else(
    accounts, project, other_project, stranger, redis_client
):
    state = accounts.limit()
    assert dict(redis_client.zrange(LIMITS, 0, -1, withscores=True)) == {
        project.api_token: state.limited_until,
        other_project.api_token: state.limited_until,
    }
    row = SetMember.objects.get(resource=AI_CREDITS, token=project.api_token)
    assert (row.limited_until, row.reason) == (state.limited_until, "limit_reached")
    assert timezone.now() - row.since < timedelta(minutes=1)


def test_lifting_removes_the_scores_and_leaves_tombstones(accounts, project, redis_client):
    accounts.limit()
    limiting = SetMember.objects.get(resource=AI_CREDITS, token=project.api_token)
    accounts.allow()
    assert redis_client.zcard(LIMITS) == 0
    row = SetMember.objects.get(pk=limiting.pk)
    assert (row.version, row.limited_until, row.since) == (limiting.version + 1, None, None)
    assert entry(redis_client, project) == Entry(row.version, None, None)


def test_since_is_when_the_block_began_and_not_when_it_was_last_confirmed(accounts, project):
    accounts.limit()
    began = SetMember.objects.get(resource=AI_CREDITS, token=project.api_token).since
    accounts.limit(limited_until=FAR_FUTURE)
    assert SetMember.objects.get(resource=AI_CREDITS, token=project.api_token).since == began


def test_a_grace_is_published_in_its_own_set(accounts, project, redis_client):
    ends = int(timezone.now().timestamp()) + 600
    accounts.allow(state="grace", limited_until=FAR_FUTURE, suspended_until=ends)
    assert redis_client.zscore(LIMITS, project.api_token) is None
    assert redis_client.zscore(SUSPENDED, project.api_token) == ends
    accounts.limit()
    assert redis_client.zscore(SUSPENDED, project.api_token) is None


def test_a_rolled_back_transaction_publishes_nothing(accounts, project, redis_client, feed):
    with run_commit_hooks(), transaction.atomic():
        publish([accounts.limited_state()])
        transaction.set_rollback(True)
    assert redis_client.zcard(LIMITS) == 0
    assert feed() == []


def test_usage_alone_costs_one_read_and_one_write_for_any_number_of_accounts(accounts, stranger):
    before, state = accounts.state(), accounts.state(usage_micro=7)
    publish_now(before, replace(before, organization_id=stranger.organization_id))
    with CaptureQueriesContext(connection) as queries:
        publish_now(state, replace(state, organization_id=stranger.organization_id))
    statements = [
        query["sql"].split()[0] for query in queries if "SAVEPOINT" not in query["sql"].upper()
    ]
    assert statements == ["SELECT", "INSERT"]
    assert QuotaState.objects.filter(version=state.version).count() == 2


# --- stale decisions and pushes ------------------------------------------------------------------
@pytest.mark.parametrize("older", ["limit", "allow"])
def test_a_stale_decision_is_ignored(accounts, project, redis_client, feed, older):
    stale = accounts.limited_state() if older == "limit" else accounts.state()
    newer = accounts.state() if older == "limit" else accounts.limited_state()
    publish_now(newer)
    seen = feed()
    publish_now(stale)
    publish_now(replace(stale, version=newer.version))
    assert QuotaState.objects.get(resource=AI_CREDITS).published == newer
    assert redis_client.zcard(LIMITS) == (0 if older == "limit" else 1)
    assert feed() == seen


def test_a_state_of_a_new_ledger_replaces_a_higher_version(accounts, project, redis_client):
    accounts.limit()
    restored = replace(accounts.state(), version=1, ledger_epoch="1")
    publish_now(restored)
    assert QuotaState.objects.get(resource=AI_CREDITS).published == restored
    assert redis_client.zcard(LIMITS) == 0


def test_the_newer_of_two_decisions_in_one_batch_wins(accounts, project, redis_client):
    older, newer = accounts.limited_state(), accounts.state()
    publish_now(newer, older)
    assert QuotaState.objects.get(resource=AI_CREDITS).published == newer
    assert redis_client.zcard(LIMITS) == 0


def test_a_push_that_arrives_late_changes_nothing(accounts, project, redis_client):
    with HeldCommits() as first:
        publish([accounts.limited_state()])
    with HeldCommits() as second:
        publish([accounts.state()])
    second.run()
    first.run()
    assert redis_client.zcard(LIMITS) == 0


# --- set by hand ---------------------------------------------------------------------------------
def test_a_block_set_by_hand_is_neither_overwritten_nor_removed(accounts, project, redis_client):
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE - 7})
    accounts.limit()
    assert redis_client.zscore(LIMITS, project.api_token) == FAR_FUTURE - 7
    accounts.allow()
    assert redis_client.zscore(LIMITS, project.api_token) == FAR_FUTURE - 7


def test_a_published_score_that_was_changed_by_hand_is_left_alone(accounts, project, redis_client):
    accounts.limit()
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE - 7})
    accounts.allow()
    assert redis_client.zscore(LIMITS, project.api_token) == FAR_FUTURE - 7


def test_an_expired_score_set_by_hand_is_replaced(accounts, project, redis_client):
    redis_client.zadd(LIMITS, {project.api_token: 1_000_000_000})
    state = accounts.limit()
    assert redis_client.zscore(LIMITS, project.api_token) == state.limited_until


def test_a_published_block_applies_when_one_set_by_hand_expires(
    accounts, project, trusted_redis, redis_client
):
    ends = timezone.now().replace(microsecond=0) + timedelta(seconds=60)
    redis_client.zadd(LIMITS, {project.api_token: int(ends.timestamp())})
    accounts.limit()
    trusted_redis()
    assert check(project).reason == "set_by_hand"
    verdict = check(project, now=ends + timedelta(seconds=1))
    assert (verdict.limited, verdict.reason) == (True, "limit_reached")


# --- new projects and rotated tokens -------------------------------------------------------------
def test_a_new_project_of_a_limited_organization_is_limited_at_once(
    accounts, project, redis_client, feed
):
    accounts.limit()
    with run_commit_hooks():
        newer = Project.objects.create(organization=project.organization, name="Newer")
        republish_project(newer)
    assert redis_client.zscore(LIMITS, newer.api_token)
    assert entry(redis_client, newer).version == 1
    assert {(change["project_id"], change["limited"]) for change in feed()[2:]} == {
        (newer.pk, True)
    }


def test_a_new_project_is_limited_even_before_redis_is_updated(accounts, project, trusted_redis):
    accounts.limit()
    trusted_redis()
    newer = Project.objects.create(organization=project.organization, name="Newer")
    verdict = check(newer)
    assert (verdict.limited, verdict.source) == (True, "redis")


def test_a_rotated_token_keeps_the_block(accounts, project, redis_client):
    state = accounts.limit()
    former = project.api_token
    version = SetMember.objects.get(resource=AI_CREDITS, token=former).version
    earlier = timezone.now() - timedelta(days=1)
    SetMember.objects.update(changed_at=earlier)
    project.api_token = generate_project_api_token()
    with run_commit_hooks():
        project.save()
        republish_project(project)
    assert dict(redis_client.zrange(LIMITS, 0, -1, withscores=True)) == {
        project.api_token: state.limited_until
    }
    tombstone = SetMember.objects.get(resource=AI_CREDITS, token=former)
    assert tombstone.limited_until is None
    assert tombstone.version > version, "a push of the block that comes late is ignored"
    assert tombstone.since is None
    assert tombstone.changed_at > earlier, "the reconciler looks at it if Redis missed it"


def test_writing_everything_again_lifts_blocks_of_tokens_that_belong_to_no_project(
    accounts, project, redis_client
):
    accounts.limit()
    former = project.api_token
    Project.objects.update(api_token=generate_project_api_token())  # behind our back
    state = accounts.limited_state()
    with run_commit_hooks():
        publish([state], rewrite=True)
    project.refresh_from_db()
    assert dict(redis_client.zrange(LIMITS, 0, -1, withscores=True)) == {
        project.api_token: state.limited_until
    }
    assert SetMember.objects.get(resource=AI_CREDITS, token=former).limited_until is None


# --- the change feed -----------------------------------------------------------------------------
def test_a_project_that_is_not_published_is_a_mismatch_only_if_it_should_be_limited(
    accounts, project
):
    state = accounts.allow()
    new = Project.objects.create(organization=project.organization, name="New")
    assert find_mismatches([state]) == {}
    for restricted in (accounts.limited_state, partial(accounts.state, suspended_until=FAR_FUTURE)):
        state = restricted()
        publish_now(state)
        SetMember.objects.filter(token=new.api_token).delete()
        assert list(find_mismatches([state]).values()) == [
            f"project {new.pk} is not published as limited"
        ]


def test_a_mismatch_is_found_behind_a_project_without_rows(accounts, project, other_project):
    accounts.limit()
    state = accounts.allow()
    rows = SetMember.objects.filter(resource=AI_CREDITS)
    rows.filter(token=project.api_token).delete()
    rows.filter(token=other_project.api_token).update(limited_until=FAR_FUTURE)
    [sentence] = find_mismatches([state]).values()
    assert sentence.startswith(f"project {other_project.pk} is published as ")


def test_a_block_of_a_token_that_belongs_to_no_project_is_found(accounts, project):
    state = accounts.allow()
    assert find_mismatches([state]) == {}
    SetMember.objects.create(
        organization=project.organization,
        resource=AI_CREDITS,
        token="phc_nobody",
        origin=SetMember.Origin.PUBLISHED,
        version=1,
        limited_until=FAR_FUTURE,
        changed_at=timezone.now(),
    )
    [sentence] = find_mismatches([state]).values()
    assert sentence == "a token that belongs to no project is published as limited"


def test_a_forgotten_token_is_in_no_set(accounts, project, redis_client):
    ends = int(timezone.now().timestamp()) + 600
    accounts.allow(state="grace", suspended_until=ends)
    assert redis_client.zscore(SUSPENDED, project.api_token) == ends
    assert delta.forget([(AI_CREDITS, project.api_token)]) == 2
    assert redis_client.zscore(SUSPENDED, project.api_token) is None
    assert delta.forget([]) == 0


def test_the_feed_records_every_project_whose_limit_changed(
    accounts, project, other_project, stranger, feed
):
    publish_now(accounts.limited_state())
    assert feed() == [
        {
            "account": f"{project.organization_id}:ai_credits",
            "organization_id": str(project.organization_id),
            "project_id": one.pk,
            "resource": AI_CREDITS,
            "limited": True,
        }
        for one in (project, other_project)
    ]


def test_a_groups_own_bookings_are_not_in_the_feed(accounts, feed):
    for booked in (1, 2, 3):
        publish_now(accounts.state(usage_micro=booked, booked={"a:1": booked}))
    publish_now(accounts.state(state="warning", usage_micro=1_999 * MICRO))
    assert feed() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"allotment_micro": 1},
        {"allotment_micro": None},
        {"ledger_epoch": "1"},
        {"mode": "soft"},
        {"valid_until": None},
        {"resets_at": None},
        {"state": "grace", "suspended_until": FAR_FUTURE - 1},
    ],
)
def test_the_feed_records_what_a_gateway_must_know(accounts, feed, fields):
    publish_now(accounts.state(**fields))
    assert len(feed()) == 1


# --- Redis is down -------------------------------------------------------------------------------
def test_a_dead_redis_delays_a_publication_and_loses_nothing(
    accounts, project, own_redis, caplog, trusted_redis
):
    trusted_redis()
    own_redis.stop()
    with caplog.at_level(logging.WARNING):
        accounts.limit()
    assert "are left for the reconciler" in caplog.text
    assert redis_client_module.health.is_silent
    own_redis.start()
    trusted_redis()
    assert own_redis.client.zscore(LIMITS, project.api_token)
