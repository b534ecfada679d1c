"""Caps within a team's credits: of a project, of a user, of a run."""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway import keys
from tests.conftest import wait_until
from tests.gateway.bodies import CHAT, chat_body
from tests.gateway.conftest import DENIED, World, messages_body
from tests.gateway.fake_provider import json_script, message
from tests.gateway.fake_tollgate import FakeProject

COST = 72_000  # of one call with `messages_body`, which holds about four times as much
USER, COLLEAGUE = "slack:T1:U1", "slack:T1:U 2\n"


@pytest.fixture
def project(world: World) -> FakeProject:
    """A project of a team with plenty of credits."""
    return world.tollgate.project(credits=1000)


def refused(answer) -> dict:
    """Return the error of a refusal that says not to retry."""
    assert answer.status_code == DENIED, answer.text
    assert answer.headers["x-should-retry"] == "false"
    return answer.json()["error"]


def passed_until_refused(world: World, token: str) -> int:
    """Call until the first refusal; return how many calls passed."""
    passed = 0
    while world.post(token).status_code == 200:
        passed += 1
        assert passed < 50
    return passed


def test_a_project_has_its_share_and_its_sibling_the_rest(world: World, project) -> None:
    sibling = world.tollgate.project(credits=1000)
    sibling.organization_id = project.organization_id
    world.tollgate.cap(project, f"project:{project.id}", 1)
    token = world.tollgate.token(project)
    passed = passed_until_refused(world, token)
    assert 0 < passed * COST <= 1_000_000
    error = refused(world.post(token))
    assert (error["reason"], error["cause"]) == ("billable_credits", "project_cap_reached")
    assert "Top up" not in error["message"], "more credits would not raise its share"
    assert world.post(world.tollgate.token(sibling)).status_code == 200
    world.booked(project, passed)


def test_a_user_has_a_share_over_all_runs_and_projects(world: World, project) -> None:
    sibling = world.tollgate.project(credits=1000)
    sibling.organization_id = project.organization_id
    world.tollgate.cap(project, f"user:{USER}", 1)
    first, second = (world.tollgate.token(one, distinct_id=USER) for one in (project, sibling))
    other = world.tollgate.token(project, distinct_id=COLLEAGUE)
    assert world.post(second).status_code == 200
    passed = 1 + passed_until_refused(world, first)
    assert passed * COST <= 1_000_000
    refused(world.post(second))
    assert world.post(other).status_code == 200
    events = world.booked(project, passed)
    assert {event["distinct_id"] for event in events} == {USER, COLLEAGUE}


def test_a_caller_with_nothing_left_gets_the_cap_reached_denial(world: World, project) -> None:
    world.tollgate.cap(project, f"user:{USER}", 0)
    error = refused(world.post(world.tollgate.token(project, distinct_id=USER)))
    assert error["message"] == (
        "You have used your share of your team's Tollgate AI credits. They reset on 2126-12-01. "
        "Ask an administrator of your team to raise your share."
    )
    assert (error["reason"], error["cause"]) == ("billable_credits", "user_cap_reached")
    world.tollgate.cap(project, f"project:{project.id}", 0)
    error = refused(world.post(world.tollgate.token(project)))
    assert error["message"].startswith("This project has used its share of your team's")
    assert error["message"].endswith(
        "Ask an administrator of your team to raise the project's share."
    )


def test_a_lost_cap_counter_is_fetched_again(world: World, project) -> None:
    world.tollgate.cap(project, f"project:{project.id}", 0)
    token = world.tollgate.token(project)
    refused(world.post(token))
    scope = keys.scope(f"{project.organization_id}:ai_credits", f"project:{project.id}")
    assert world.redis.delete(scope) == 1
    assert refused(world.post(token))["cause"] == "project_cap_reached"


def test_a_run_has_its_own_cap_within_the_team(world: World, project) -> None:
    world.tollgate.cap(project, "run", 1)
    token = world.tollgate.token(project)
    assert 0 < passed_until_refused(world, token) * COST <= 1_000_000
    error = refused(world.post(token))
    assert (error["reason"], error["cause"]) == ("run_cap", "run_cap_reached")
    assert world.post(world.tollgate.token(project)).status_code == 200


def test_a_run_costs_no_more_than_was_accepted_over_all_its_tokens(world: World, project) -> None:
    run = {"task_run_id": str(uuid.uuid4()), "accepted_micro": 1_000_000}
    token = world.tollgate.token(project, **run)
    assert world.post(token).status_code == 200
    resumed = world.tollgate.token(project, **run)
    passed = 1 + passed_until_refused(world, resumed)
    assert passed * COST <= 1_000_000
    for each in (token, resumed):
        error = refused(world.post(each))
        assert (error["reason"], error["cause"]) == ("run_cap", "accepted_cap_reached")
    assert world.post(world.tollgate.token(project)).status_code == 200
    world.booked(project, passed + 1)


@pytest.mark.case("U7")
def test_dearer_calls_later_in_the_run_stay_within_what_was_accepted(world: World, project) -> None:
    token = world.tollgate.token(project, accepted_micro=3_000_000)
    assert world.post(token).status_code == 200
    dearer = messages_body() | {"model": "claude-opus-4-1"}
    passed = 0
    while world.post(token, body=dearer).status_code == 200:
        passed += 1
    assert passed > 0
    spent = world.account(project)["spent"]
    assert COST + passed * COST < spent <= 3_000_000


@pytest.mark.case("U7")
def test_an_answer_is_cut_off_where_it_would_cost_more_than_was_accepted(
    world: World, project
) -> None:
    token = world.tollgate.token(project, accepted_micro=1_000_000)
    body = chat_body()
    del body["max_completion_tokens"]
    assert world.post(token, CHAT, body).status_code == 200
    asked_for = world.provider.requests[-1].json["max_completion_tokens"]
    assert 256 <= asked_for < 1000, "the provider could answer at greater length than accepted"
    refused(world.post(world.tollgate.token(project, accepted_micro=1_000)))


@pytest.mark.parametrize(
    ("of_the_team", "cause"), [(0.9, "run_cap_reached"), (1, "accepted_cap_reached")]
)
def test_the_lower_of_the_teams_cap_and_the_accepted_number_binds(
    world: World, project, of_the_team, cause
) -> None:
    world.tollgate.cap(project, "run", of_the_team)
    token = world.tollgate.token(project, accepted_micro=1_000_000)
    assert passed_until_refused(world, token) * COST <= of_the_team * 1_000_000
    assert refused(world.post(token))["cause"] == cause
    shown = world.get("/v1/usage/slack_app", token).json()["caps"]["run"]
    assert shown["limit"] == of_the_team


def test_a_run_can_keep_its_last_call_in_reserve(world: World, project) -> None:
    world.tollgate.cap(project, "run", 1)
    token = world.tollgate.token(project)
    keeping = {"x-tollgate-last-call": "1000 100"}
    used = []
    while (answer := world.post(token, headers=keeping)).status_code == 200:
        used.append(int(answer.headers["x-tollgate-run-used"]))
    error = refused(answer)
    assert (error["reason"], error["cause"]) == ("run_cap", "run_cap_reached")
    assert used == [100 * COST * calls // 1_000_000 for calls in range(len(used))]
    last = {**messages_body(), "max_tokens": 100}
    assert len(json.dumps(last)) <= 1000
    assert world.post(token, body=last).status_code == 200, "the reserve was not kept"
    assert world.account(project)["spent"] <= 1_000_000


@pytest.mark.parametrize("sizes", ["", "1000", "1000 -1", "a b", "1000 100 1", "1  2"])
def test_a_reserve_that_makes_no_sense_is_an_error(world: World, project, sizes: str) -> None:
    answer = world.post(world.tollgate.token(project), headers={"x-tollgate-last-call": sizes})
    assert answer.status_code == 400


def test_runs_without_a_cap_are_told_nothing_about_one(world: World, project) -> None:
    answer = world.post(
        world.tollgate.token(project), headers={"x-tollgate-last-call": "99999999 999999"}
    )
    assert answer.status_code == 200
    assert "x-tollgate-run-used" not in answer.headers
    assert "x-tollgate-last-call" not in world.provider.requests[-1].headers


def test_only_as_many_concurrent_calls_pass_as_the_cap_allows(
    world: World, project, background: ThreadPoolExecutor
) -> None:
    world.tollgate.cap(project, f"user:{USER}", 1)
    token = world.tollgate.token(project, distinct_id=USER)
    gate, before = threading.Event(), len(world.provider.requests)

    def script(_: object):
        answer = json_script(message())
        answer.gate = gate
        return answer

    world.provider.script = script
    refusals = world.metric("tollgate_gateway_refusals_total")
    statuses = background.submit(world.post_at_once, token, 30)
    wait_until(
        lambda: (
            len(world.provider.requests) - before
            + world.metric("tollgate_gateway_refusals_total") - refusals
            == 30
        ),
        what="all being decided",
    )  # fmt: skip
    fit = len(world.provider.requests) - before
    held = world.account(project)["held"]
    assert held <= 1_000_000 < held + held // fit
    gate.set()
    assert sorted(statuses.result()) == [200] * fit + [429] * (30 - fit)
    world.booked(project, fit)


def test_raising_or_removing_a_cap_takes_effect_at_once(world: World, project) -> None:
    scope = f"user:{USER}"
    world.tollgate.cap(project, scope, 0)
    token = world.tollgate.token(project, distinct_id=USER)
    refused(world.post(token))
    world.tollgate.cap(project, scope, 0.4)
    wait_until(lambda: world.post(token).status_code == 200, what="the raise being known")
    passed = 1 + passed_until_refused(world, token)
    assert passed * COST <= 400_000
    world.tollgate.cap(project, scope, None)
    wait_until(lambda: world.post(token).status_code == 200, what="the removal being known")
    # A new cap includes what was used before it.
    world.booked(project, passed + 1)
    world.tollgate.cap(project, scope, (passed + 1) * COST / 1_000_000)

    def cap_is_known() -> bool:
        answer = world.post(token)
        return (
            answer.status_code == DENIED and answer.json()["error"]["cause"] == "user_cap_reached"
        )

    wait_until(cap_is_known, what="the cap being known")


def test_the_usage_endpoint_shows_the_callers_caps(world: World, project) -> None:
    page = "/v1/usage/slack_app"
    assert world.get(page, world.tollgate.token(project)).json()["caps"] == {}
    world.tollgate.cap(project, f"user:{USER}", 5)
    world.tollgate.cap(project, f"project:{project.id}", 3)
    world.tollgate.cap(project, "run", 1)
    mine = world.tollgate.token(project, distinct_id=USER)
    theirs = world.tollgate.token(project, distinct_id=COLLEAGUE)
    # The caps are shown before the first call, too.
    wait_until(lambda: len(world.get(page, mine).json()["caps"]) == 3, what="the caps being known")
    assert world.get(page, mine).json()["caps"]["user"] == {
        "usage": 0, "limit": 5, "held": 0, "remaining": 5,
    }  # fmt: skip
    for token in (mine, theirs):
        assert world.post(token).status_code == 200
    world.booked(project, 2)
    used = {"held": 0}
    assert world.get(page, mine).json()["caps"] == {
        "project": {"usage": 0.144, "limit": 3, "remaining": 2.856} | used,
        "user": {"usage": 0.072, "limit": 5, "remaining": 4.928} | used,
        "run": {"usage": 0.072, "limit": 1, "remaining": 0.928} | used,
    }
    assert world.get(page, theirs).json()["caps"].keys() == {"project", "run"}
    assert world.get(page, world.tollgate.token(world.tollgate.project())).json()["caps"] == {}


def test_an_added_output_cap_shrinks_to_the_share(world: World, project) -> None:
    world.tollgate.cap(project, f"user:{USER}", 1)
    body = chat_body()
    del body["max_completion_tokens"]
    token = world.tollgate.token(project, distinct_id=USER)
    assert world.post(token, CHAT, body).status_code == 200
    assert 256 <= world.provider.requests[-1].json["max_completion_tokens"] < 1000


def test_a_cap_applies_even_if_the_team_has_no_limit(world: World) -> None:
    project = world.tollgate.project(credits=None)
    world.tollgate.cap(project, f"project:{project.id}", 0.2)
    token = world.tollgate.token(project)
    refused(world.post(token))
    assert world.post(token, body=messages_body(max_tokens=20)).status_code == 200


@pytest.mark.parametrize("scope", ["project", "user", "run"])
@pytest.mark.parametrize("spare", [0, 100_000], ids=["all of it", "a part of it"])
def test_a_share_held_by_other_calls_is_refused_with_a_retry(
    world: World, project, background: ThreadPoolExecutor, scope: str, spare: int
) -> None:
    gate, before = threading.Event(), len(world.provider.requests)

    def script(_: object):
        answer = json_script(message())
        answer.gate = gate
        return answer

    def begin(project: FakeProject, token: str):
        """Make a call that stays under way until the gate opens."""
        call = background.submit(world.post, token)
        wait_until(lambda: world.account(project)["held"] > 0, what="a call under way")
        return call

    world.provider.script = script
    without_caps = world.tollgate.project(credits=1000)
    calls = [begin(without_caps, world.tollgate.token(without_caps))]
    bound = world.account(without_caps)["held"]
    names = {"project": f"project:{project.id}", "user": f"user:{USER}", "run": "run"}
    world.tollgate.cap(project, names[scope], (bound + spare) / 1_000_000)
    token = world.tollgate.token(project, distinct_id=USER)
    calls.append(begin(project, token))
    wait_until(lambda: len(world.provider.requests) == before + 2, what="both being under way")
    third = background.submit(world.post, token)
    wait_until(
        lambda: third.done() or len(world.provider.requests) > before + 2,
        what="the third being decided",
    )
    gate.set()
    answer = third.result()
    assert [call.result().status_code for call in calls] == [200, 200]
    assert answer.status_code == 429, answer.text
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
    error = answer.json()["error"]
    reason = "run_cap" if scope == "run" else "billable_credits"
    assert (error["reason"], error["cause"]) == (reason, f"{scope}_cap_reached")
    assert error["message"].endswith(" Please try again.")
