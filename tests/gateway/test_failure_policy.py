"""What happens if something that the gateway depends on fails: one test for each promise."""

import httpx
import pytest

from gateway import keys
from tests.conftest import wait_until
from tests.gateway.conftest import DENIED, METRICS_TOKEN, World
from tests.gateway.fake_tollgate import FakeProject
from tests.stopwatch import Stopwatch

EVERYTHING = ("introspect", "quota", "changes", "events")
OPEN_WINDOW = 60  # seconds
OPENED = "tollgate_gateway_open_because_unknown_total"


def known(world: World, credits: float | None = 100) -> tuple[FakeProject, str]:
    """Return a project and a token that the gateway knows."""
    project = world.tollgate.project(credits=credits)
    token = world.tollgate.token(project)
    assert world.post(token).status_code == 200
    return project, token


def django_goes_away(world: World) -> None:
    """Make Django answer 503 to everything, and wait until the gateway has noticed."""
    for what in EVERYTHING:
        world.tollgate.fail(what, 503)
    asked = world.tollgate.calls["changes"]
    wait_until(lambda: world.tollgate.calls["changes"] > asked, what="the feed being asked again")


def ago(world: World, seconds: float) -> int:
    """Return the time on Redis' clock this many seconds ago, in milliseconds."""
    now, micros = world.redis.time()
    return round((now - seconds) * 1000) + micros // 1000


def heard_last(world: World, seconds: float, project: FakeProject | None = None) -> None:
    """Set the time of the last good answer to this many seconds ago."""
    at = ago(world, seconds)
    world.redis.hset(keys.FEED, "confirmed_at", at)
    if project is not None:
        world.redis.hset(keys.project(project.id, "ai_credits"), "asked_at", at)


def alarms(world: World) -> float:
    """Return the number of unusable answers from the metric that pages somebody."""
    lines = world.get("/metrics", METRICS_TOKEN).text.splitlines()
    name = 'tollgate_gateway_resolver_failures_total{kind="unusable"'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def assert_closed(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers.get("x-should-retry") != "false"
    assert answer.json()["error"]["message"]


@pytest.mark.case("G7")
def test_while_django_is_away_the_gate_is_open_for_the_window_and_then_closed(
    fragile: World,
) -> None:
    project, token = known(fragile)
    django_goes_away(fragile)
    assert fragile.post(token).status_code == 200
    opened = fragile.metric(OPENED)
    heard_last(fragile, OPEN_WINDOW - 10, project)
    assert fragile.post(token).status_code == 200
    assert fragile.metric(OPENED) == opened + 1  # Django was not heard of for a while
    heard_last(fragile, OPEN_WINDOW + 1, project)
    assert_closed(fragile.post(token))
    wait_until(lambda: fragile.get("/_ready").status_code == 503, what="it not being ready")
    fragile.tollgate.mend()
    wait_until(lambda: fragile.post(token).status_code == 200, what="the gate being open again")


@pytest.mark.case("G7")
def test_the_open_window_passes_no_more_than_was_last_known_to_be_left(fragile: World) -> None:
    project, token = known(fragile, credits=1)
    django_goes_away(fragile)
    passed = 1
    while passed < 1000 and (answer := fragile.post(token)).status_code == 200:
        passed += 1
    assert answer.status_code == DENIED
    assert passed > 1
    assert fragile.account(project)["spent"] == passed * 72_000 <= 1_000_000


def test_while_django_is_away_a_limited_team_stays_limited(fragile: World) -> None:
    project, token = known(fragile)
    fragile.tollgate.limit(project)
    wait_until(lambda: fragile.post(token).status_code == DENIED, what="the limit being known")
    django_goes_away(fragile)
    heard_last(fragile, OPEN_WINDOW + 1, project)
    assert fragile.post(token).status_code == DENIED


def test_while_django_is_away_unknown_callers_are_refused(fragile: World) -> None:
    token = fragile.tollgate.token(fragile.tollgate.project(credits=100))
    django_goes_away(fragile)
    assert_closed(fragile.post(token))


def test_while_django_is_away_unmetered_calls_of_known_tokens_pass(fragile: World) -> None:
    project = fragile.tollgate.project()
    token = fragile.tollgate.token(project, "llm_gateway")
    path = "/llm_gateway/v1/messages"
    assert fragile.post(token, path).status_code == 200
    django_goes_away(fragile)
    heard_last(fragile, OPEN_WINDOW + 1)
    wait_until(lambda: fragile.get("/_ready").status_code == 503, what="the window's end")
    assert fragile.post(token, path).status_code == 200


@pytest.mark.case("G8")
@pytest.mark.parametrize(
    ("status", "body"),
    [(401, {}), (403, {}), (404, {}), (200, b"{nonsense"), (200, {}), (200, {"limited": {}}),
     (200, {"limited": {"ai_credits": {"limited": False}}, "organization_id": "x"})],
)  # fmt: skip
def test_an_unusable_answer_never_opens_the_gate(fragile, status, body) -> None:
    unusable = alarms(fragile)
    fragile.tollgate.fail("quota", status, body)
    project = fragile.tollgate.project(credits=100)
    token = fragile.tollgate.token(project)
    assert_closed(fragile.post(token))
    wait_until(lambda: alarms(fragile) > unusable, what="the alarm")
    # The refusal is not remembered for the team: the next good answer counts at once.
    fragile.tollgate.mend()
    wait_until(lambda: fragile.post(token).status_code == 200, what="the gate being open")


@pytest.mark.case("G8")
def test_a_refused_question_about_a_known_team_closes_the_gate(fragile: World) -> None:
    project, token = known(fragile)
    fragile.tollgate.fail("quota", 403)
    fragile.tollgate.limit(project)  # the feed announces a change
    # The gate closes at once, not only at the end of the open window.
    key = keys.project(project.id, "ai_credits")
    wait_until(lambda: fragile.redis.hget(key, "broken") == "1", what="the answer being noted")
    assert_closed(fragile.post(token))
    fragile.tollgate.mend()
    wait_until(lambda: fragile.post(token).status_code == DENIED, what="the limit being known")


def test_a_change_that_cannot_be_fetched_leaves_the_gate_open_only_for_the_window(
    fragile: World,
) -> None:
    """The feed still answers, but that confirms only projects that it does not mention."""
    project, token = known(fragile)
    fragile.tollgate.fail("quota", 503)
    fragile.tollgate.limit(project)
    key = keys.project(project.id, "ai_credits")
    wait_until(lambda: fragile.redis.hexists(key, "stale_since"), what="the change being noted")
    assert fragile.post(token).status_code == 200
    at = ago(fragile, OPEN_WINDOW + 1)
    fragile.redis.hset(key, mapping={"asked_at": at, "stale_since": at})
    assert_closed(fragile.post(token))


@pytest.mark.case("G7")
def test_a_failed_question_is_not_repeated_for_each_call(fragile: World) -> None:
    project = fragile.tollgate.project(credits=100)
    token = fragile.tollgate.token(project)
    fragile.tollgate.fail("quota", 503)
    for _ in range(60):
        assert_closed(fragile.post(token))
    assert 1 <= fragile.tollgate.asked_about[project.id] < 15


@pytest.mark.case("G15")
def test_events_wait_for_django_and_are_delivered_in_order(fragile: World) -> None:
    project, token = known(fragile)
    fragile.booked(project)
    fragile.settled(project)
    fragile.tollgate.fail("events", 503)
    for _ in range(5):
        assert fragile.post(token).status_code == 200
    assert fragile.account(project)["pending"] == 5 * 72_000
    wait_until(
        lambda: (
            fragile.metric("tollgate_gateway_events_waiting") >= 5
            and fragile.metric("tollgate_gateway_events_oldest_seconds") > 0.2
        ),
        what="the number of waiting events in the metric",
    )
    waiting = [
        entry["event"].split('"uuid":"')[1][:36]
        for _, entry in fragile.redis.xrange("tollgate:events")
        if project.organization_id in entry["account"]
    ]
    delivered = len(fragile.tollgate.deliveries)
    fragile.tollgate.mend()
    fragile.booked(project, 6)
    after = fragile.tollgate.deliveries[delivered:]
    assert [uuid for uuid in after if uuid in waiting] == waiting
    assert fragile.settled(project) == {"spent": 6 * 72_000, "held": 0, "pending": 0}


def test_a_lost_acknowledgement_books_nothing_twice(fragile: World) -> None:
    project = fragile.tollgate.project(credits=100)
    token = fragile.tollgate.token(project)
    fragile.tollgate.forget_booking_answers = True
    assert fragile.post(token).status_code == 200
    fragile.booked(project)
    fragile.tollgate.forget_booking_answers = False
    assert fragile.settled(project) == {"spent": 72_000, "held": 0, "pending": 0}
    assert fragile.tollgate.account(project).booked == 72_000


@pytest.mark.parametrize("status", ["conflict", "quarantined", "poison"])
def test_an_event_that_billing_refuses_is_set_aside_and_delays_no_other(
    fragile: World, status: str
) -> None:
    project = fragile.tollgate.project(credits=100)
    token = fragile.tollgate.token(project)
    fragile.tollgate.fail("events", 503)
    for _ in range(3):
        assert fragile.post(token).status_code == 200
    [*_, (_, entry), _] = fragile.redis.xrange("tollgate:events")
    refused = entry["event"].split('"uuid":"')[1][:36]
    fragile.tollgate.event_status[refused] = status
    fragile.tollgate.mend()
    assert refused not in {event["uuid"] for event in fragile.booked(project, 2)}
    assert fragile.settled(project)["spent"] == 3 * 72_000
    [*_, (_, aside)] = fragile.redis.xrange("tollgate:events:set-aside")
    assert refused in aside["event"]


@pytest.mark.case("Q8")
def test_a_limit_and_its_lifting_are_obeyed_within_a_second(fragile: World) -> None:
    project, token = known(fragile)
    for change, status in ((fragile.tollgate.limit, DENIED), (fragile.tollgate.lift, 200)):
        change(project)
        with Stopwatch() as waited:
            wait_until(lambda: fragile.post(token).status_code == status, what=f"status {status}")  # noqa: B023
        assert waited.seconds < 4


def test_a_revoked_token_is_refused_within_seconds(fragile: World) -> None:
    project, token = known(fragile)
    other = fragile.tollgate.token(project)
    assert fragile.post(other).status_code == 200
    fragile.tollgate.revoke(token)
    wait_until(lambda: fragile.post(token).status_code == 401, what="the token being refused")
    assert fragile.post(other).status_code == 200


def test_a_reset_feed_makes_the_gateway_ask_about_everything_again(fragile: World) -> None:
    """After restoring a database, limits and revocations are not announced."""
    project, token = known(fragile)
    fragile.tollgate.limit(project)
    fragile.tollgate.changes.clear()
    revoked = fragile.tollgate.token(project)
    del fragile.tollgate.tokens[revoked]
    fragile.tollgate.feed = "2f6b8a5f-0000-4000-8000-000000000000"
    wait_until(lambda: fragile.post(token).status_code == DENIED, what="the limit being known")


@pytest.mark.case("G9")
def test_a_thousand_first_calls_of_a_team_ask_django_once(world: World) -> None:
    project = world.tollgate.project(credits=None)
    version = world.tollgate.version
    wait_until(  # the feed announces the new project, and would trigger a question about it
        lambda: int(world.redis.hget("tollgate:feed", "version")) >= version,
        what="the feed being read",
    )
    token = world.tollgate.token(project)
    asked = world.tollgate.asked_about
    before = asked[project.id]
    assert set(world.post_at_once(token, 1000)) == {200}
    assert (asked[token], asked[project.id]) == (1, before + 1)
