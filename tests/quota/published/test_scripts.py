"""What each script in Django's Redis changes and returns."""

import time
from typing import Any

import pytest
import redis

from quota.published import redis_client as quota_redis

LIMITS, SUSPENDED, PUBLISHED, STATES, REBUILD = "limits", "suspended", "published", "states", "new"
KEYS = [LIMITS, SUSPENDED, PUBLISHED, STATES]
SOON, LATER, PAST = 4_000_000_000, 4_000_001_000, 1_000_000_000
NO_STATE = ["account", "", 0, 0]


@pytest.fixture
def run(redis_client: redis.Redis):
    """Return a function that runs a script."""

    def run_script(name: str, keys: list[str], *arguments: Any) -> Any:
        quota_redis.script.cache_clear()
        return quota_redis.script(name)(keys=keys, args=arguments)

    return run_script


def scores(client: redis.Redis) -> tuple[float | None, float | None]:
    return client.zscore(LIMITS, "token"), client.zscore(SUSPENDED, "token")


def test_a_member_is_written_with_its_entry(run, redis_client):
    assert run("push", KEYS, *NO_STATE, "token", 3, 2, SOON, LATER) == 2
    assert scores(redis_client) == (SOON, LATER)
    assert redis_client.hgetall(PUBLISHED) == {"token": f"3 {SOON} {LATER}"}
    assert not redis_client.exists(STATES)
    assert run("push", KEYS, *NO_STATE, "token", 3, 2, SOON, LATER) == 0


def test_every_member_of_a_push_is_written(run, redis_client):
    members = [
        *("token", 1, 0, SOON, "-"),
        *("other", 2, 0, "-", LATER),
        *("third", 3, 0, "-", "-"),
    ]
    assert run("push", KEYS, *NO_STATE, *members) == 2
    assert redis_client.zrange(LIMITS, 0, -1) == ["token"]
    assert redis_client.zrange(SUSPENDED, 0, -1) == ["other"]
    assert redis_client.hgetall(PUBLISHED) == {
        "token": f"1 {SOON} -",
        "other": f"2 - {LATER}",
        "third": "3 - -",
    }


@pytest.mark.parametrize(("version", "replaced"), [(4, True), (5, True), (6, False), (10, False)])
def test_a_newer_member_is_not_overwritten(run, redis_client, version, replaced):
    run("push", KEYS, *NO_STATE, "token", version, 0, SOON, "-")
    changed = run("push", KEYS, *NO_STATE, "token", 6, 5, LATER, SOON)
    assert changed == (2 if replaced else 0)
    assert scores(redis_client) == ((LATER, SOON) if replaced else (SOON, None))
    entry = f"6 {LATER} {SOON}" if replaced else f"{version} {SOON} -"
    assert redis_client.hget(PUBLISHED, "token") == entry


@pytest.mark.parametrize("wanted", ["-", PAST])
def test_a_member_that_is_no_longer_limited_is_removed(run, redis_client, wanted):
    run("push", KEYS, *NO_STATE, "token", 1, 0, SOON, LATER)
    assert run("push", KEYS, *NO_STATE, "token", 2, 1, wanted, "-") == 2
    assert scores(redis_client) == (None, None)
    assert redis_client.hget(PUBLISHED, "token") == "2 - -"
    assert run("push", KEYS, *NO_STATE, "token", 2, 1, wanted, "-") == 0


@pytest.mark.parametrize("wanted", ["-", LATER])
@pytest.mark.parametrize("entry", [None, f"1 {LATER} -", "1 - -"])
def test_a_score_that_was_set_by_hand_stays(run, redis_client, wanted, entry):
    redis_client.zadd(LIMITS, {"token": SOON})
    if entry:
        redis_client.hset(PUBLISHED, "token", entry)
    assert run("push", KEYS, *NO_STATE, "token", 2, 1, wanted, "-") == 0
    assert scores(redis_client) == (SOON, None)
    assert redis_client.hget(PUBLISHED, "token") == "2 - -"


def test_a_score_by_hand_that_ended_is_replaced_or_removed(run, redis_client):
    for wanted, score in (("-", None), (SOON, SOON)):
        redis_client.zadd(LIMITS, {"token": PAST})
        assert run("push", KEYS, *NO_STATE, "token", 2, 2, wanted, "-") == 1
        assert scores(redis_client) == (score, None)


def within_one_second(client: redis.Redis, action) -> int:
    """Repeat the action until it began and ended in the same second; return that second."""
    while True:
        client.flushall()
        now = client.time()[0]
        action(now)
        if client.time()[0] == now:
            return now


def test_a_score_lasts_until_its_second_begins(run, redis_client):
    def push(now: int) -> None:
        members = [*("token", 1, 0, now, "-"), *("other", 1, 0, now + 1, "-")]
        run("push", KEYS, *NO_STATE, *members)

    now = within_one_second(redis_client, push)
    assert redis_client.zrange(LIMITS, 0, -1, withscores=True) == [("other", now + 1)]


def test_a_score_by_hand_stays_until_its_second_begins(run, redis_client):
    def push(now: int) -> None:
        redis_client.zadd(LIMITS, {"token": now, "other": now + 1})
        members = [*("token", 1, 0, LATER, "-"), *("other", 1, 0, LATER, "-")]
        run("push", KEYS, *NO_STATE, *members)

    now = within_one_second(redis_client, push)
    assert dict(redis_client.zrange(LIMITS, 0, -1, withscores=True)) == {
        "token": LATER,
        "other": now + 1,
    }


@pytest.mark.parametrize(
    ("present", "changed", "kept"),
    [
        (None, 1, False),
        ("4 old", 1, False),
        ("5 old", 1, False),
        ("6 old", 0, True),
        ("6 state", 0, False),
        ("10 old", 0, True),
    ],
)
def test_a_state_replaces_an_older_one(run, redis_client, present, changed, kept):
    if present:
        redis_client.hset(STATES, "account", present)
    assert run("push", KEYS, "account", "state", 6, 5) == changed
    assert redis_client.hget(STATES, "account") == (present if kept else "6 state")
    assert not redis_client.exists(LIMITS, PUBLISHED)


def test_a_part_of_a_lost_rebuild_writes_nothing(run, redis_client):
    part = ["account", "state", 6, 5, "token", 1, 0, SOON, "-"]
    assert run("push", [*KEYS, REBUILD], *part) is None
    assert not redis_client.exists(*KEYS)
    redis_client.set(REBUILD, "1")
    assert run("push", [*KEYS, REBUILD], *part) == 2


def test_a_rebuild_ends_once(run, redis_client):
    assert run("finish_rebuild", ["marker", REBUILD], "nonce", 60_000) == 0
    assert not redis_client.exists("marker")
    redis_client.set(REBUILD, "1")
    assert run("finish_rebuild", ["marker", REBUILD], "nonce", 60_000) == 1
    assert redis_client.get("marker") == "nonce"
    assert 30_000 < redis_client.pttl("marker") <= 60_000
    assert not redis_client.exists(REBUILD)
    assert run("finish_rebuild", ["marker", REBUILD], "other", 60_000) == 0


def test_only_the_same_marker_is_renewed(run, redis_client):
    assert run("renew_marker", ["marker"], "nonce", 60_000) == 0
    redis_client.set("marker", "nonce", px=1_000_000)
    assert run("renew_marker", ["marker"], "other", 60_000) == 0
    assert redis_client.pttl("marker") > 60_000
    assert run("renew_marker", ["marker"], "nonce", 60_000) == 1
    assert 30_000 < redis_client.pttl("marker") <= 60_000


def test_an_observation_has_every_score_with_its_entry_and_forgets_the_expired(run, redis_client):
    redis_client.zadd(LIMITS, {"one": SOON, "two": LATER, "gone": PAST})
    redis_client.hset(PUBLISHED, "two", "2 x -")
    found = run("observe", [LIMITS, PUBLISHED])
    assert found == ["one", str(SOON), None, "two", str(LATER), "2 x -"]
    assert redis_client.zrange(LIMITS, 0, -1) == ["one", "two"]
    redis_client.delete(LIMITS)
    assert run("observe", [LIMITS, PUBLISHED]) == []


def test_a_reading_has_everything_about_one_project(run, redis_client):
    keys = ["marker", "generation", STATES, "l1", "s1", "p1", "l2", "s2", "p2"]
    before = int(time.time())
    (seconds, micros), *rest = run("read", keys, "token", "a1", "a2")
    assert before <= int(seconds) <= before + 20
    assert 0 <= int(micros) < 10**6
    assert rest == [None] * 10
    redis_client.set("marker", "nonce")
    redis_client.set("generation", "7")
    redis_client.hset(STATES, mapping={"a1": "state 1", "a2": "state 2"})
    for number in ("1", "2"):
        redis_client.zadd(f"l{number}", {"token": f"1{number}", "other": 5})
        redis_client.zadd(f"s{number}", {"token": f"2{number}", "other": 5})
        redis_client.hset(f"p{number}", "token", f"entry {number}")
    _, *rest = run("read", keys, "token", "a1", "a2")
    expected = ["nonce", "7", "11", "21", "entry 1", "state 1", "12", "22", "entry 2", "state 2"]
    assert rest == expected


def test_versions_are_those_of_the_entries(run, redis_client):
    redis_client.hset(PUBLISHED, mapping={"one": "12 - -", "two": f"3 {SOON} -"})
    assert run("versions", [PUBLISHED], "one", "nothing", "two") == [12, -1, 3]
    assert run("versions", [PUBLISHED]) == []
