"""The reconciler: it makes Redis match what was published, whatever happened to Redis."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace

import pytest
import redis
from django.conf import settings
from django.db import OperationalError, connection
from django.utils import timezone

from projects.change_feed import Change
from projects.models import Organization, Project
from quota import metrics
from quota.account_state import FAR_FUTURE
from quota.gate import check
from quota.models import QuotaState, SetMember
from quota.published import comparison, limited_set, marker, retention
from quota.published import reconciler as reconciler_module
from quota.published import redis_client as quota_redis
from quota.published.delta import RebuildLost
from quota.published.limited_set import Entry, published_key
from quota.published.publication import publish, republish_project
from quota.published.reconciler import Reconciler
from quota.resources import AI_CREDITS, POSTHOG_CODE_CREDITS, RESOURCES
from tests.conftest import wait_until
from tests.quota.world import LIMITS, SUSPENDED, Accounts, run_commit_hooks

pytestmark = pytest.mark.django_db


@pytest.fixture
def reconciler(accounts) -> Reconciler:
    """A reconciler that has already rebuilt Redis."""
    running = Reconciler()
    running.tick()
    return running


@pytest.fixture
def feed(reconciler):
    """Return a function that gets the changes in the feed since the reconciler started."""
    start = Change.objects.count()

    def _feed() -> list[tuple]:
        rows = Change.objects.order_by("version")[start:]
        return [(row.payload["project_id"], row.payload["limited"]) for row in rows]

    return _feed


def contents(redis_client, key: str = LIMITS) -> dict[str, float]:
    return dict(redis_client.zrange(key, 0, -1, withscores=True))


def repairs() -> float:
    return sum(
        metrics.REPAIRS.labels(found_by)._value.get() for found_by in ("blocks", "recent", "fleet")
    )


def publish_without_redis(*states) -> None:
    """Publish while Redis can't be reached."""
    quota_redis.health.failed()
    with run_commit_hooks():
        publish(states)
    quota_redis.health.__init__()


# --- repair --------------------------------------------------------------------------------------
def test_at_rest_there_is_nothing_to_repair(accounts, project, stranger, reconciler, redis_client):
    accounts.limit()
    before = repairs(), contents(redis_client)
    for _ in range(3):
        reconciler.tick()
    assert (repairs(), contents(redis_client)) == before


def test_what_is_right_is_not_pushed_again(accounts, reconciler, monkeypatch):
    accounts.limit()
    pushed = []
    monkeypatch.setattr(comparison, "push_accounts", lambda found: pushed.extend(found) or 0)
    comparison.compare(list(QuotaState.objects.values_list("organization_id", "resource")))
    comparison.compare_blocks()
    accounts.limit(limited_until=int(timezone.now().timestamp()) - 60)  # in no set any more
    comparison.compare_blocks()
    assert pushed == []


@pytest.mark.case("Q8")
def test_a_published_block_that_somebody_removed_is_restored(
    accounts, project, reconciler, redis_client
):
    state = accounts.limit()
    before = repairs()
    redis_client.zrem(LIMITS, project.api_token)
    reconciler.tick()
    assert contents(redis_client) == {project.api_token: state.limited_until}
    assert repairs() == before + 1


def test_blocks_of_several_organizations_are_restored_at_once(
    accounts, project, stranger, redis_client
):
    accounts.limit()
    Accounts(stranger.organization, version=1).limit()
    redis_client.delete(LIMITS)
    comparison.compare_blocks()
    assert contents(redis_client).keys() == {project.api_token, stranger.api_token}


def test_a_member_without_its_entry_is_pushed_again(accounts, project, redis_client):
    accounts.limit()
    redis_client.hdel(published_key(AI_CREDITS), project.api_token)
    comparison.compare([(project.organization_id, AI_CREDITS)])
    assert redis_client.hexists(published_key(AI_CREDITS), project.api_token)


def test_a_deleted_set_is_restored_before_the_marker_is_renewed(
    accounts, project, reconciler, redis_client, caplog
):
    accounts.limit()
    redis_client.delete(LIMITS)
    reconciler.tick()
    assert "Redis has a newer version" not in caplog.text
    assert contents(redis_client)
    assert check(project).limited


def test_a_removed_grace_is_restored(accounts, project, reconciler, redis_client):
    ends = int(timezone.now().timestamp()) + 600
    accounts.allow(state="grace", suspended_until=ends)
    redis_client.delete(SUSPENDED)
    reconciler.tick()
    assert contents(redis_client, SUSPENDED) == {project.api_token: ends}


@pytest.mark.parametrize("change", ["limit", "allow"])
def test_a_publication_that_never_reached_redis_is_repaired(
    accounts, project, reconciler, redis_client, change
):
    accounts.allow() if change == "limit" else accounts.limit()
    states = [
        accounts.limited_state(resource) if change == "limit" else accounts.state(resource)
        for resource in RESOURCES
    ]
    publish_without_redis(*states)
    reconciler.tick()
    assert bool(contents(redis_client)) == (change == "limit")
    reading = limited_set.read(project.organization_id, project.api_token)
    assert reading.resources[AI_CREDITS].state == states[0]


def test_a_state_published_a_moment_ago_is_repaired_wherever_the_pass_over_the_fleet_is(
    accounts, project, reconciler
):
    state = accounts.state(usage_micro=7)  # its scores are the same, only the state differs
    publish_without_redis(state)
    QuotaState.objects.update(changed_at=timezone.now() - timedelta(seconds=2))
    reconciler._position = 2**31
    reconciler.tick()
    reading = limited_set.read(project.organization_id, project.api_token)
    assert reading.resources[AI_CREDITS].state == state


def test_a_state_that_is_about_to_be_pushed_is_left_to_the_process_that_committed_it(
    accounts, project, reconciler, monkeypatch
):
    monkeypatch.setattr(reconciler_module, "UNDER_WAY", timedelta(hours=1))
    monkeypatch.setattr(reconciler_module, "RECENT", timedelta(hours=2))
    state = accounts.state(usage_micro=7)
    publish_without_redis(state)
    reconciler._position = 2**31
    reconciler.tick()
    reading = limited_set.read(project.organization_id, project.api_token)
    assert reading.resources[AI_CREDITS].state != state


def test_a_larger_fleet_has_larger_slices(accounts, stranger, monkeypatch):
    monkeypatch.setattr(reconciler_module, "MIN_SLICE", 1)
    monkeypatch.setattr(reconciler_module, "FLEET_TICKS", 2)
    accounts.allow()
    Accounts(stranger.organization).allow()
    QuotaState.objects.filter(pk=QuotaState.objects.order_by("pk").first().pk).update(id=1)
    reconciler, number = Reconciler(), QuotaState.objects.count()
    slices = [len(reconciler._next_slice()) for _ in range(number + 4)]
    half = number // 2
    assert (number % 2, slices) == (0, [1] * number + [0, half, half, 0])


def test_a_fleet_of_many_slices_is_gone_through_to_its_end(accounts, stranger, monkeypatch):
    monkeypatch.setattr(reconciler_module, "MIN_SLICE", 1)
    reconciler = Reconciler()
    reconciler.tick()
    last = Accounts(stranger.organization, version=10).state(usage_micro=7)
    publish_without_redis(last)
    QuotaState.objects.update(changed_at=timezone.now() - timedelta(hours=1))
    for _ in range(QuotaState.objects.count() + 1):  # and the tick that starts over
        reconciler.tick()
    reading = limited_set.read(stranger.organization_id, stranger.api_token)
    assert reading.resources[AI_CREDITS].state == last


def test_an_old_difference_is_found_by_going_through_the_fleet(accounts, project, reconciler):
    state = accounts.state(usage_micro=7)
    publish_without_redis(state)
    QuotaState.objects.update(changed_at=timezone.now() - timedelta(hours=1))
    for _ in range(3):  # one pass over all accounts, and the tick that starts over
        reconciler.tick()
    reading = limited_set.read(project.organization_id, project.api_token)
    assert reading.resources[AI_CREDITS].state == state


def test_a_new_project_that_never_reached_redis_is_repaired(
    accounts, project, reconciler, redis_client
):
    accounts.limit()
    newer = Project.objects.create(organization=project.organization, name="Newer")
    quota_redis.health.failed()
    with run_commit_hooks():
        republish_project(newer)
    quota_redis.health.__init__()
    reconciler.tick()
    assert newer.api_token in contents(redis_client)


def test_a_new_project_is_among_what_was_published_a_moment_ago(accounts, project, reconciler):
    newer = Project.objects.create(organization=project.organization, name="Newer")
    with run_commit_hooks():
        republish_project(newer)
    now = timezone.now()
    QuotaState.objects.update(changed_at=now - timedelta(hours=1))
    SetMember.objects.update(changed_at=now - timedelta(hours=1))
    SetMember.objects.filter(token=newer.api_token).update(changed_at=now - timedelta(seconds=2))
    assert reconciler_module._recent() == {(project.organization_id, each) for each in RESOURCES}


@pytest.mark.case("Q7")
def test_expired_scores_are_pruned(accounts, project, reconciler, redis_client):
    redis_client.zadd(LIMITS, {"phc_anybody": 1_000_000_000, project.api_token: 5})
    reconciler.tick()
    assert contents(redis_client) == {}


def test_entries_of_a_deleted_organization_are_removed(stranger, reconciler, redis_client):
    accounts = Accounts(stranger.organization, version=10)
    accounts.limit()
    token = stranger.api_token
    Project.objects.all().delete()
    Organization.objects.filter(name="Strangers").delete()
    assert token in contents(redis_client)
    reconciler.tick()
    assert token not in contents(redis_client)


# --- wiped and restored --------------------------------------------------------------------------
@pytest.mark.case("Q13")
def test_a_wiped_redis_is_rebuilt_and_trusted_again(accounts, project, reconciler, redis_client):
    state = accounts.limit()
    redis_client.flushall()
    reconciler.tick()
    assert contents(redis_client) == {project.api_token: state.limited_until}
    verdict = check(project)
    assert (verdict.limited, verdict.source) == (True, "redis")


def test_a_rebuild_brings_tombstones_back_so_that_a_late_push_changes_nothing(
    accounts, project, reconciler, redis_client
):
    accounts.limit()
    accounts.allow()
    redis_client.flushall()
    reconciler.tick()
    row = SetMember.objects.get(resource=AI_CREDITS, token=project.api_token)
    text = redis_client.hget(published_key(AI_CREDITS), project.api_token)
    assert Entry.parse(text) == Entry(row.version, None, None)


def test_a_wipe_during_a_rebuild_leaves_no_marker(accounts, reconciler, redis_client):
    with pytest.raises(RebuildLost), marker.rebuilding():
        redis_client.flushall()
    assert marker.current() is None


def test_a_wipe_between_two_slices_of_a_rebuild_stops_it(accounts, redis_client):
    account = (accounts.organization.pk, AI_CREDITS)
    with suppress(RebuildLost), marker.rebuilding() as nonce:
        building = marker.building_key(nonce)
        comparison.push_accounts([account], building=building)
        redis_client.flushall()
        with pytest.raises(RebuildLost):
            comparison.push_accounts([account], building=building)
    assert redis_client.keys("tollgate:quota:*") == []


def test_a_wipe_while_comparing_leaves_no_marker(accounts, reconciler, redis_client, monkeypatch):
    compare = comparison.compare_blocks

    def wiped_meanwhile():
        result = compare()
        redis_client.flushall()
        return result

    monkeypatch.setattr(comparison, "compare_blocks", wiped_meanwhile)
    reconciler.tick()
    assert marker.current() is None


def test_each_tick_renews_the_marker(reconciler, redis_client):
    redis_client.pexpire(limited_set.MARKER, 4000)
    expires = redis_client.pexpiretime(limited_set.MARKER)
    reconciler.tick()
    assert redis_client.pexpiretime(limited_set.MARKER) > expires


def test_a_marker_is_renewed_only_if_it_is_still_the_same(accounts, redis_client):
    with marker.rebuilding():
        pass
    nonce = marker.current()
    redis_client.pexpire(limited_set.MARKER, 4000)
    expires = redis_client.pexpiretime(limited_set.MARKER)
    assert not marker.renew("another")
    assert redis_client.pexpiretime(limited_set.MARKER) == expires
    assert marker.renew(nonce)
    assert redis_client.pexpiretime(limited_set.MARKER) > expires
    assert redis_client.pttl(limited_set.MARKER) <= 5000


@pytest.mark.case("Q13")
def test_an_old_snapshot_is_repaired_before_it_is_trusted(
    accounts, project, stranger, own_redis, tmp_path
):
    their_accounts = Accounts(stranger.organization, version=10)
    running = Reconciler()
    running.tick()
    their_accounts.limit()
    own_redis.stop()
    shutil.copytree(tmp_path / "data", tmp_path / "snapshot")
    own_redis.start()
    quota_redis.health.__init__()
    accounts.limit()
    their_accounts.allow()

    own_redis.stop()
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(tmp_path / "snapshot", tmp_path / "data")
    own_redis.start()
    assert contents(own_redis.client) == {stranger.api_token: pytest.approx(FAR_FUTURE, rel=1)}
    assert check(project).limited
    assert not check(stranger).limited
    running.tick()
    assert set(contents(own_redis.client)) == {project.api_token}
    quota_redis.health.__init__()
    assert (check(project).limited, check(project).source) == (True, "redis")
    assert not check(stranger).limited


def test_redis_follows_the_database_back_to_an_old_backup(
    accounts, project, reconciler, redis_client, caplog
):
    accounts.limit()
    backup = [*QuotaState.objects.all(), *SetMember.objects.all()]
    for _ in range(3):
        accounts.allow()
    for row in backup:
        row.save()
    reconciler.tick()
    assert "Redis has a newer version" in caplog.text
    assert project.api_token in contents(redis_client)
    redis_client.delete(limited_set.MARKER)
    reconciler.tick()
    reading = limited_set.read(project.organization_id, project.api_token)
    assert reading.resources[AI_CREDITS].state.limited


# --- by hand -------------------------------------------------------------------------------------
@pytest.mark.case("Q8")
def test_a_block_set_by_hand_is_recorded_reported_and_left_alone(
    project, stranger, reconciler, redis_client, feed
):
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE - 5})
    for _ in range(2):
        reconciler.tick()
    assert feed() == [(project.pk, True)]
    assert contents(redis_client) == {project.api_token: FAR_FUTURE - 5}
    row = SetMember.objects.get(origin=SetMember.Origin.BY_HAND)
    assert (row.project, row.organization, row.reason) == (
        project,
        project.organization,
        "set_by_hand",
    )
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE - 6})
    reconciler.tick()
    row.refresh_from_db()
    assert row.limited_until == FAR_FUTURE - 6
    redis_client.zrem(LIMITS, project.api_token)
    for _ in range(2):
        reconciler.tick()
    assert feed() == [(project.pk, True), (project.pk, True), (project.pk, False)]
    assert not SetMember.objects.filter(origin=SetMember.Origin.BY_HAND).exists()


def test_the_end_of_a_block_set_by_hand_is_reported(project, reconciler, redis_client, feed):
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE})
    reconciler.tick()
    assert feed() == [(project.pk, True)]
    redis_client.zadd(LIMITS, {project.api_token: int(timezone.now().timestamp()) + 1})
    wait_until(lambda: reconciler.tick() or not feed()[-1][1], what="the end of the block")
    assert feed()[-1] == (project.pk, False)
    assert contents(redis_client) == {}


def test_a_published_block_returns_when_one_set_by_hand_is_removed(
    accounts, project, reconciler, redis_client, feed
):
    state = accounts.limit()
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE - 5})
    reconciler.tick()
    assert contents(redis_client) == {project.api_token: FAR_FUTURE - 5}
    redis_client.zrem(LIMITS, project.api_token)
    reconciler.tick()
    assert contents(redis_client) == {project.api_token: state.limited_until}
    assert all(limited for _, limited in feed())


def test_a_block_set_by_hand_is_still_reported_when_billing_lifts_its_own(
    accounts, project, reconciler, redis_client, feed
):
    accounts.limit()
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE - 5})
    reconciler.tick()
    with run_commit_hooks():
        publish([accounts.state()])
    assert feed()[-1] == (project.pk, True)


def test_a_member_that_is_not_a_project_is_listed_but_not_reported(reconciler, redis_client, feed):
    redis_client.execute_command("ZADD", LIMITS, "+inf", "somebody")
    reconciler.tick()
    row = SetMember.objects.get(origin=SetMember.Origin.BY_HAND)
    assert (row.token, row.project, row.limited_until) == ("somebody", None, FAR_FUTURE)
    assert feed() == []


def test_a_member_that_cannot_be_a_token_is_ignored(project, reconciler, redis_client):
    redis_client.execute_command("ZADD", LIMITS, "+inf", b"\xff\x00", "+inf", "x" * 10_000)
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE, "y" * 200: FAR_FUTURE})
    reconciler.tick()
    found = SetMember.objects.filter(origin=SetMember.Origin.BY_HAND)
    assert set(found.values_list("token", flat=True)) == {project.api_token, "y" * 200}


@pytest.mark.case("Q13")
def test_blocks_set_by_hand_are_lost_with_the_redis_they_were_in(
    project, reconciler, redis_client, feed
):
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE})
    reconciler.tick()
    redis_client.flushall()
    reconciler.tick()
    assert not check(project).limited
    assert feed() == [(project.pk, True), (project.pk, False)]


def test_a_published_block_is_never_taken_for_one_set_by_hand(
    accounts, project, reconciler, redis_client
):
    accounts.limit()
    redis_client.flushall()
    for _ in range(2):
        reconciler.tick()
    assert not SetMember.objects.filter(origin=SetMember.Origin.BY_HAND).exists()


# --- several reconcilers, due decisions, retention -----------------------------------------------
def test_several_reconcilers_report_a_block_set_by_hand_once(
    accounts, project, reconciler, redis_client, feed
):
    others = [Reconciler() for _ in range(3)]
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE})
    for one in (*others, reconciler, *others):
        one.tick()
    assert feed() == [(project.pk, True)]
    assert check(project).source == "redis"


def test_billing_is_asked_about_every_state_that_is_no_longer_valid(
    accounts, reconciler, monkeypatch
):
    asked = []

    def decide(organization_id, resource):
        asked.append(resource)
        if resource == AI_CREDITS:
            raise RuntimeError("undecidable")
        with run_commit_hooks():
            publish([accounts.state(resource)])

    accounts.allow(valid_until=timezone.now() - timedelta(seconds=1))
    monkeypatch.setattr("quota.decider._registered", [decide])
    for _ in range(3):
        reconciler.tick()
    assert sorted(asked) == sorted(RESOURCES)


def test_an_account_that_cannot_be_decided_does_not_stop_others(accounts, reconciler, monkeypatch):
    asked = []

    def decide(organization_id, resource):
        asked.append(resource)
        raise RuntimeError("undecidable")

    monkeypatch.setattr(reconciler_module, "DUE_PER_TICK", 1)
    monkeypatch.setattr("quota.decider._registered", [decide])
    for seconds, resource in ((2, AI_CREDITS), (1, POSTHOG_CODE_CREDITS)):
        with run_commit_hooks():
            ended = timezone.now() - timedelta(seconds=seconds)
            publish([accounts.state(resource, valid_until=ended)])
        reconciler.tick()
    assert asked == [AI_CREDITS, POSTHOG_CODE_CREDITS]


def test_an_account_that_could_not_be_decided_is_tried_again(accounts, reconciler, monkeypatch):
    asked = []

    def decide(organization_id, resource):
        asked.append(resource)
        raise RuntimeError("undecidable")

    monkeypatch.setattr(reconciler_module, "DUE_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr("quota.decider._registered", [decide])
    with run_commit_hooks():
        ended = timezone.now() - timedelta(seconds=1)
        publish([accounts.state(AI_CREDITS, valid_until=ended)])
    for _ in range(3):
        reconciler.tick()
    assert asked == [AI_CREDITS] * 3


def test_old_changes_and_tombstones_are_deleted(accounts, project, reconciler, redis_client):
    accounts.limit()
    former = project.api_token
    project.api_token = "phc_newer"
    with run_commit_hooks():
        project.save()
        republish_project(project)
    now = timezone.now()
    retention.prune(now)
    assert SetMember.objects.filter(token=former).exists()
    retention.prune(now + retention.CHANGES_KEPT + timedelta(days=1))
    assert not SetMember.objects.filter(token=former).exists()
    assert SetMember.objects.filter(token="phc_newer").count() == len(RESOURCES)
    assert not redis_client.hexists(published_key(AI_CREDITS), former)
    assert not Change.objects.exists()


def test_old_rows_are_deleted_once_a_minute(accounts, reconciler, monkeypatch):
    pruned = []
    monkeypatch.setattr(retention, "prune", pruned.append)
    reconciler.tick()
    assert pruned == []
    monkeypatch.setattr(reconciler_module, "PRUNE_SECONDS", 0.0)
    reconciler._prune_at = 0.0
    for _ in range(2):
        reconciler.tick()
    assert len(pruned) == 2


# --- outages and signals -------------------------------------------------------------------------
def test_it_ticks_once_a_second_and_less_often_while_ticks_fail(accounts, monkeypatch):
    """Pauses are longest after a failure, and shorter by what a tick took."""
    away, gone = OperationalError("away"), redis.ConnectionError("gone")
    outcomes = [(0.25, None), (0.25, away), (0.25, gone), (0.25, gone), (3.0, None)]
    clock, pauses = [0.0], []

    def tick(self):
        seconds, error = outcomes.pop(0)
        clock[0] += seconds
        if error is not None:
            raise error

    class Stop(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)
            if not outcomes:
                self.set()
            return super().wait(0)

    monkeypatch.setattr(Reconciler, "tick", tick)
    monkeypatch.setattr(reconciler_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(reconciler_module, "close_old_connections", lambda: None)
    Reconciler().run(Stop())
    assert pauses == [0.75, 1.25, 1.75, 1.75, 0.05]
    assert quota_redis.health.disruptions == 2


@pytest.mark.django_db(transaction=True)
def test_a_tick_begins_with_a_connection_that_works(monkeypatch):
    stop, failed = threading.Event(), []

    def tick(self):
        failed.append(connection.errors_occurred)
        stop.set()

    monkeypatch.setattr(Reconciler, "tick", tick)
    connection.ensure_connection()
    connection.errors_occurred = True
    Reconciler().run(stop)
    assert failed == [False]


@pytest.fixture
def running() -> Iterator[Reconciler]:
    """A reconciler that works on a thread, as its process does."""
    reconciler, stop = Reconciler(), threading.Event()

    def run() -> None:
        reconciler.run(stop)
        connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    yield reconciler
    stop.set()
    thread.join(60)


@pytest.mark.case("Q13")
@pytest.mark.django_db(transaction=True)
def test_a_wiped_set_is_restored(accounts, project, redis_client, running):
    accounts.limit()
    wait_until(marker.current, what="the marker")
    redis_client.flushall()
    wait_until(lambda: contents(redis_client) and marker.current(), what="the repair")
    assert contents(redis_client).keys() == {project.api_token}


@pytest.mark.case("Q13")
@pytest.mark.django_db(transaction=True)
def test_an_old_snapshot_is_corrected(accounts, project, stranger, own_redis, tmp_path, running):
    their_accounts = Accounts(stranger.organization, version=10)
    their_accounts.limit()
    wait_until(lambda: contents(own_redis.client) and marker.current(), what="the first state")
    own_redis.stop()
    shutil.copytree(tmp_path / "data", tmp_path / "snapshot")
    own_redis.start()
    wait_until(marker.current, what="the marker")
    accounts.limit()
    their_accounts.allow()
    wait_until(lambda: set(contents(own_redis.client)) == {project.api_token}, what="the change")
    own_redis.stop()
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(tmp_path / "snapshot", tmp_path / "data")
    own_redis.start()
    wait_until(
        lambda: set(contents(own_redis.client)) == {project.api_token}, what="the correction"
    )


@pytest.mark.django_db(transaction=True)
def test_it_survives_a_dead_redis_and_a_failing_database(accounts, project, own_redis, monkeypatch):
    accounts.limit()
    own_redis.stop()
    running, stop = Reconciler(), threading.Event()
    failures = iter([OperationalError("away"), None])
    marker_of = Reconciler._marker

    def failing(self):
        if error := next(failures, None):
            raise error
        return marker_of(self)

    monkeypatch.setattr(Reconciler, "_marker", failing)
    before = metrics.TICK_FAILURES._value.get()
    thread = threading.Thread(target=running.run, args=[stop])
    thread.start()
    try:
        wait_until(lambda: metrics.TICK_FAILURES._value.get() >= before + 2, what="two failures")
        own_redis.start()
        wait_until(lambda: contents(own_redis.client), what="the repair")
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def address_of_the_test_database() -> str:
    found = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{found['NAME']}"
    return f"postgres://{found['USER']}@{found['HOST']}:{found['PORT']}/{found['NAME']}"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_exits_cleanly_on_a_signal(accounts, project, redis_client, number):
    accounts.limit()
    redis_client.flushall()
    process = subprocess.Popen(
        [sys.executable, str(settings.BASE_DIR / "manage.py"), "run_reconciler"],
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DATABASE_URL": address_of_the_test_database(),
        },
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: redis_client.exists(limited_set.MARKER), what="the first tick")
        assert contents(redis_client).keys() == {project.api_token}
        process.send_signal(number)
        assert process.wait(60) == 0
        assert b"Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.stderr.close()
