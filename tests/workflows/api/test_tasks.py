"""Tasks over the API, from the request to the answer in the rows."""

import base64
import uuid
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from billing.allowances.caps import set_cap
from billing.allowances.limits import set_limit
from billing.ingestion.refunds import refund_attempt
from coding_tasks import api_tasks, creation
from coding_tasks.models import AcceptedRequest, CodingTask, ProjectAgent, RunEvent, TaskRun
from projects.authentication import introspection
from projects.models import OAuthAccessToken, User
from quota import gate
from quota.resources import AI_CREDITS, MICRO, POSTHOG_CODE_CREDITS
from tests.billing.world import book, usage_event
from tests.conftest import wait_until
from tests.workflows.api.conftest import Caller, caller_for
from tests.workflows.fake_gateway import AGENT, API_AGENT
from tests.workflows.temporal_server import history, terminate, wait_for_close
from tests.workflows.world import World
from workflows import tasks
from workflows.api import running
from workflows.models import Notice
from workflows.recovery import lost_tasks
from workflows.temporal import client


def look_for_workflows(monkeypatch) -> None:
    """Run the sweep as if every task were old enough."""
    monkeypatch.setattr(lost_tasks, "LOOKED_FOR_AFTER", -lost_tasks.LOOKED_FOR_AFTER)
    tasks.look_for_workflows()


def workflow_ids() -> list[str]:
    return list(CodingTask.objects.values_list("workflow_id", flat=True))


# --- From a request to an answer -----------------------------------------------------------------
def test_a_task_is_answered_in_its_rows_and_slack_hears_nothing(
    shop: World, caller: Caller, worker
):
    shop.gateway.answer_next("It is a shop.")
    made = caller.started("What is this?\nPlease.")
    assert (made["state"], made["origin"], made["owner"]) == ("active", "api", "ada")
    assert (made["title"], made["repository"]) == ("What is this?", "acme/shop")
    done = caller.wait_for(made, "done")
    [run] = done["runs"]
    assert (run["state"], run["answer"], run["error"]) == ("succeeded", "It is a shop.", None)
    assert run["request"] == "What is this?\nPlease."
    assert done["finished_at"]
    wait_for_close(workflow_ids()[0])
    assert shop.slack.calls() == []
    assert not Notice.objects.exists()
    assert not OAuthAccessToken.objects.exists()


def test_the_calls_of_a_task_go_to_its_product_with_a_token_for_nothing_else(
    shop: World, caller: Caller, worker, member: User
):
    shop.gateway.hold_next()
    made = caller.started()
    wait_until(lambda: shop.gateway.requests(API_AGENT), what="the agent's call")
    [call] = shop.gateway.requests(API_AGENT)
    token = call.headers.get("x-api-key") or call.headers["authorization"].split()[1]
    principal = introspection.find(token)
    assert principal is not None
    assert principal.products == ("posthog_code",)
    assert principal.project_ids == {shop.project.pk}
    assert principal.scopes == {"llm_gateway:read"}
    assert str(principal.task_run_id) == made["runs"][0]["id"]
    assert principal.distinct_id == str(member.pk)
    shop.gateway.release()
    caller.wait_for(made, "done")
    assert introspection.find(token) is None
    assert shop.gateway.requests(AGENT) == []


def test_a_program_without_a_user_is_named_after_its_project(shop: World, client, worker):
    program = caller_for(shop, client, user=None)
    made = program.started()
    assert made["owner"] is None
    assert program.wait_for(made, "done")
    task = CodingTask.objects.get()
    assert task.distinct_id == f"project-{shop.project.pk}"
    assert program.message(made, "and now?").status_code == 201


def test_the_model_that_was_asked_for_is_called(shop: World, caller: Caller, worker):
    made = caller.started(model="claude-haiku-4-5")
    assert made["model"] == "claude-haiku-4-5"
    caller.wait_for(made, "done")
    [request] = shop.gateway.requests(API_AGENT)
    assert request.body["model"] == "claude-haiku-4-5"


def test_an_agent_is_the_one_asked_for_else_the_projects(shop: World, caller: Caller):
    assert caller.started()["agent"] == "reader"
    ProjectAgent.objects.create(project=shop.project, agent="small")
    assert caller.started("with codex, go")["agent"] == "small"
    assert caller.started(agent="codex")["agent"] == "codex"


def test_a_repository_can_be_named_by_its_number(shop: World, caller: Caller):
    number = caller.started()["repository_id"]
    assert caller.started(repository=number)["repository"] == "acme/shop"


def test_a_failed_run_says_why(shop: World, caller: Caller, worker, hurried_tasks):
    hurried_tasks(attempts=1)
    shop.gateway.fail_next(400)
    failed = caller.wait_for(caller.started(), "failed")
    [run] = failed["runs"]
    assert (run["state"], run["error"]) == ("failed", "ModelRefused")
    assert run["message"].startswith("Something went wrong")
    shop.gateway.answer_next("Now it works.")
    assert caller.message(failed, "try again").status_code == 201
    assert caller.wait_for(failed, "done")["runs"][-1]["answer"] == "Now it works."


def test_a_run_shows_what_each_call_cost_and_what_was_given_back(shop: World, caller: Caller):
    task = caller.started()
    run_id = uuid.UUID(task["runs"][0]["id"])
    properties = {"task_run_id": str(run_id), "ai_product": "posthog_code"}
    began = timezone.now() - timedelta(minutes=5)
    times = [began + timedelta(minutes=minutes) for minutes in range(3)]
    book(*(usage_event(shop.project, "0.1", at=at, properties=properties) for at in times))
    billed = caller.read(task)["runs"][0]
    each = billed["calls"][0]["credits"]
    assert [call["credits"] for call in billed["calls"]] == [each] * 3
    assert (each > 0, billed["credits"]) == (True, pytest.approx(3 * each))
    assert billed["calls"][0] == {
        "at": times[0].strftime("%Y-%m-%dT%H:%M:%SZ"),
        "model": "claude-sonnet-4-5",
        "input": 1200,
        "output": 300,
        "credits": each,
    }
    refund_attempt(run_id, shop.project, times[0], times[1], reason="LostTurn")
    shown = caller.read(task)
    for about in (shown, shown["runs"][0], caller.get().json()["results"][0]):
        assert about["credits"] == pytest.approx(2 * each)
        assert about["credits_given_back"] == pytest.approx(each)
    assert [call["credits"] for call in shown["runs"][0]["calls"]] == [0, each, each]


# --- Lists ---------------------------------------------------------------------------------------
def test_tasks_are_listed_newest_first_in_pages(caller: Caller):
    for text in ("one", "two", "three"):
        caller.started(text)
    first = caller.get(limit="2").json()
    assert [each["title"] for each in first["results"]] == ["three", "two"]
    headers = {"Authorization": f"Bearer {caller.token}"}
    second = caller.client.get(first["next"], headers=headers).json()
    assert [each["title"] for each in second["results"]] == ["one"]
    assert (second["next"], "runs" in second["results"][0]) == (None, False)


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "o=-1", "r=x", "p=", "p=junk", "p=2026-13-40", "p=2026-11-30", "p=%00"),
        *("p=0001-01-01T00:00:00%2B23:59", "p=9999-12-31T23:59:59-23:59"),
    ],
)
def test_a_cursor_that_is_not_ours_is_refused(caller: Caller, cursor: str):
    caller.started()
    encoded = base64.b64encode(cursor.encode()).decode()
    assert caller.get(cursor=encoded).status_code == (200 if cursor == "" else 404)
    assert caller.get(cursor="junk").status_code == 404


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1" * 5_000, "1e3"])
def test_an_odd_size_of_a_page_is_ignored(caller: Caller, limit: str):
    caller.started()
    assert len(caller.get(limit=limit).json()["results"]) == 1


def test_a_project_has_a_bounded_number_of_tasks_at_work(caller: Caller, monkeypatch):
    monkeypatch.setattr(api_tasks, "MOST_ACTIVE", 2)
    first, _ = caller.started("one"), caller.started("two")
    assert caller.create("three", key="k").status_code == 409
    caller.stop(first)
    assert caller.create("three", key="k").status_code == 201


def test_a_task_has_a_bounded_number_of_messages_that_wait(caller: Caller, monkeypatch):
    monkeypatch.setattr(api_tasks, "MOST_WAITING", 2)
    task = caller.started("one")
    assert caller.message(task, "two").status_code == 201
    assert caller.message(task, "three").status_code == 409
    assert TaskRun.objects.count() == 2


# --- The same request twice ----------------------------------------------------------------------
def test_a_repeated_request_finds_its_task(caller: Caller):
    first = caller.create("hello", key="k-1")
    again = caller.create("hello", key="k-1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert CodingTask.objects.count() == TaskRun.objects.count() == 1


def test_a_repeated_request_is_answered_even_without_credits(shop: World, caller: Caller):
    first = caller.create("hello", key="k-1")
    shop.limit(POSTHOG_CODE_CREDITS)
    again = caller.create("hello", key="k-1")
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


@pytest.mark.parametrize("other", [{"text": "other"}, {"agent": "small"}, {"origin": "desktop"}])
def test_a_key_with_another_body_is_refused(caller: Caller, other: dict):
    caller.create("hello", key="k-1")
    answer = caller.create(**{"text": "hello"} | other, key="k-1")
    assert answer.status_code == 422
    assert CodingTask.objects.count() == 1


def test_a_key_belongs_to_its_owner(shop: World, caller: Caller):
    program = caller_for(shop, caller.client, user=None)
    ids = {each.create("hello", key="k-1").json()["id"] for each in (caller, program)}
    assert len(ids) == 2


def test_requests_that_race_make_one_task(caller: Caller, monkeypatch):
    ask = creation.require_credits
    faster = []

    def overtaken(*about):
        monkeypatch.setattr(creation, "require_credits", ask)
        faster.append(caller.create("hello", key="k-1"))

    monkeypatch.setattr(creation, "require_credits", overtaken)
    slower = caller.create("hello", key="k-1")
    assert (faster[0].status_code, slower.status_code) == (201, 200)
    assert faster[0].json()["id"] == slower.json()["id"]
    assert CodingTask.objects.count() == TaskRun.objects.count() == 1


def test_without_a_key_each_request_is_new(caller: Caller):
    assert caller.started("hello")["id"] != caller.started("hello")["id"]


# --- Credits -------------------------------------------------------------------------------------
def test_without_credits_nothing_is_started(shop: World, caller: Caller):
    shop.limit(POSTHOG_CODE_CREDITS)
    refused = caller.create("hello", key="k-1")
    assert refused.status_code == 429
    assert (refused.headers["Retry-After"], refused.headers["x-should-retry"]) == ("60", "false")
    said = refused.json()
    assert said["detail"].startswith("Your team has used its monthly PostHog Code credits.")
    assert (said["reason"], said["cause"]) == ("billable_credits", "set_by_hand")
    assert said["resource"] == POSTHOG_CODE_CREDITS
    assert not CodingTask.objects.exists()
    assert not AcceptedRequest.objects.exists()
    shop.top_up(POSTHOG_CODE_CREDITS)
    assert caller.create("hello", key="k-1").status_code == 201


def test_the_credits_of_slack_do_not_matter(shop: World, caller: Caller):
    shop.limit(AI_CREDITS)
    assert caller.create().status_code == 201


def test_the_cap_of_a_user_holds(shop: World, caller: Caller, member: User):
    organization = shop.project.organization
    set_limit(organization, POSTHOG_CODE_CREDITS, 100 * MICRO)
    set_cap(organization, POSTHOG_CODE_CREDITS, "user", 0, subject=str(member.pk))
    refused = caller.create()
    assert (refused.status_code, refused.json()["cause"]) == (429, "user_cap_reached")
    assert caller_for(shop, caller.client, user=None).create().status_code == 201


def test_while_it_is_unknown_whether_there_are_credits_nothing_is_started(
    caller: Caller, monkeypatch
):
    def unknown(*_arguments, **_options):
        raise gate.QuotaUnknown("no store answers")

    monkeypatch.setattr(gate, "check", unknown)
    answer = caller.create()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert not CodingTask.objects.exists()


def test_a_run_refused_half_way_pauses_and_goes_on_after_a_top_up(
    shop: World, caller: Caller, worker, hurried_tasks
):
    hurried_tasks(recheck_seconds=3600)
    shop.gateway.refuse_next("posthog_code")
    shop.gateway.before_refusing(lambda: shop.limit(POSTHOG_CODE_CREDITS))
    made = caller.started()
    caller.wait_for_run(made, "paused")
    assert not OAuthAccessToken.objects.exists()
    assert caller.message(made, "more").status_code == 429
    tasks.wake_paused_runs()
    assert caller.read(made)["runs"][-1]["state"] == "paused"
    shop.gateway.answer_next("It is a shop.")
    shop.top_up(POSTHOG_CODE_CREDITS)
    tasks.wake_paused_runs()
    done = caller.wait_for(made, "done")
    assert [run["answer"] for run in done["runs"]] == ["It is a shop."]
    assert shop.slack.calls() == []


# --- Messages ------------------------------------------------------------------------------------
def test_a_message_continues_the_conversation(shop: World, caller: Caller, worker):
    made = caller.started("What is this?")
    caller.wait_for(made, "done")
    shop.gateway.answer_next("It sells.")
    answer = caller.message(made, "What does it do?", key="m-1")
    assert (answer.status_code, answer.json()["request"]) == (201, "What does it do?")
    again = caller.message(made, "What does it do?", key="m-1")
    assert (again.status_code, again.json()["id"]) == (200, answer.json()["id"])
    assert caller.message(made, "Something else", key="m-1").status_code == 422
    done = caller.wait_for(made, "done")
    assert [run["answer"] for run in done["runs"]][1] == "It sells."
    said = [each["content"] for each in shop.gateway.requests(API_AGENT)[-1].body["messages"]]
    assert (said[0], said[-1]) == ("What is this?", "What does it do?")
    assert TaskRun.objects.count() == 2


def test_messages_that_come_during_work_are_answered_in_order(shop: World, caller: Caller, worker):
    shop.gateway.hold_next()
    made = caller.started("one")
    wait_until(lambda: shop.gateway.requests(API_AGENT), what="the agent's call")
    for text in ("two", "three"):
        assert caller.message(made, text).status_code == 201
    assert [run["state"] for run in caller.read(made)["runs"]] == ["running", "queued", "queued"]
    shop.gateway.release()
    done = caller.wait_for(made, "done")
    assert {run["state"] for run in done["runs"]} == {"succeeded"}
    asked = [each.body["messages"][-1]["content"] for each in shop.gateway.requests(API_AGENT)]
    assert asked == ["one", "two", "three"]
    assert len(workflow_ids()) == 1


def test_a_message_without_credits_is_refused(shop: World, caller: Caller):
    made = caller.started()
    shop.limit(POSTHOG_CODE_CREDITS)
    assert caller.message(made, "more").status_code == 429
    assert TaskRun.objects.count() == 1


# --- Stopping ------------------------------------------------------------------------------------
def test_a_stop_revokes_the_token_and_ends_the_run(shop: World, caller: Caller, worker):
    shop.gateway.hold_next()
    made = caller.started()
    wait_until(lambda: shop.gateway.requests(API_AGENT), what="the agent's call")
    stopped = caller.stop(made)
    assert not OAuthAccessToken.objects.exists()
    assert stopped == {
        "stopped": True,
        "in_flight": True,
        "pushing": False,
        "state": "stopped",
        "credits": 0,
    }
    shop.gateway.release()
    wait_for_close(workflow_ids()[0])
    ended = caller.read(made)
    assert (ended["state"], ended["runs"][0]["state"]) == ("stopped", "stopped")
    assert ended["runs"][0]["answer"] is None
    assert caller.stop(made)["stopped"] is False
    assert caller.message(made, "go on").status_code == 409


def test_a_stop_before_the_work_began_keeps_it_from_beginning(shop: World, caller: Caller):
    made = caller.started()
    assert caller.stop(made)["state"] == "stopped"
    tasks.start_pending_tasks()
    assert TaskRun.objects.get().state == TaskRun.State.STOPPED


def test_a_stop_of_a_task_that_is_done_changes_nothing(shop: World, caller: Caller, worker):
    made = caller.started()
    caller.wait_for(made, "done")
    assert caller.stop(made)["state"] == "done"


# --- When processes die --------------------------------------------------------------------------
def test_a_task_whose_request_died_is_started_by_a_sweep(
    shop: World, caller: Caller, worker, monkeypatch
):
    monkeypatch.setattr(running, "start_or_keep", lambda _task: None)
    made = caller.started()
    tasks.start_pending_tasks()
    assert TaskRun.objects.get().announced_at is None  # its request may still be at work
    monkeypatch.setattr(running, "ANNOUNCED_WITHIN", -running.ANNOUNCED_WITHIN)
    tasks.start_pending_tasks()
    caller.wait_for(made, "done")


def test_while_temporal_is_down_a_task_is_kept(shop: World, caller: Caller, monkeypatch):
    def unavailable(_task):
        raise client.TemporalUnavailable("down")

    monkeypatch.setattr(client, "start_api_task", unavailable)
    assert caller.create().status_code == 201
    assert TaskRun.objects.get().announced_at is None


def test_starting_a_task_again_does_its_work_once(shop: World, caller: Caller, worker):
    made = caller.started()
    task = CodingTask.objects.get()
    client.start_api_task(task)
    caller.wait_for(made, "done")
    wait_for_close(task.workflow_id)
    client.start_api_task(task)
    wait_for_close(task.workflow_id)
    assert len(shop.gateway.requests(API_AGENT)) == 1


def test_a_terminated_workflow_fails_its_run(shop: World, caller: Caller, worker):
    shop.gateway.hold_next()
    made = caller.started()
    wait_until(lambda: shop.gateway.requests(API_AGENT), what="the agent's call")
    terminate(workflow_ids()[0])
    wait_until(
        lambda: (
            workflow_ids()[0] in client.terminated_workflows(CodingTask.objects.get().created_at)
        ),
        what="the listing",
    )
    tasks.clear_up_terminated_workflows()
    ended = caller.read(made)
    assert (ended["state"], ended["runs"][0]["state"]) == ("failed", "failed")
    assert ended["runs"][0]["error"] == "its workflow was terminated"
    assert not OAuthAccessToken.objects.exists()


def test_a_workflow_that_temporal_lost_begins_anew_if_nothing_was_done(
    shop: World, caller: Caller, worker, monkeypatch
):
    monkeypatch.setattr(running, "start_or_keep", lambda _task: None)
    made = caller.started()
    look_for_workflows(monkeypatch)
    assert caller.read(made)["state"] == "active"
    TaskRun.objects.update(announced_at="2026-01-01T00:00:00Z")
    tasks.look_for_workflows()
    caller.wait_for(made, "done")


def test_a_workflow_that_temporal_lost_fails_a_run_that_had_begun(
    shop: World, caller: Caller, monkeypatch
):
    monkeypatch.setattr(running, "start_or_keep", lambda _task: None)
    made = caller.started()
    TaskRun.objects.update(announced_at="2026-01-01T00:00:00Z", state=TaskRun.State.RUNNING)
    look_for_workflows(monkeypatch)
    assert caller.read(made)["runs"][0]["error"] == "its workflow was lost"
    assert caller.read(made)["state"] == "failed"


def test_a_workflow_that_works_is_left_alone(shop: World, caller: Caller, worker, monkeypatch):
    shop.gateway.hold_next()
    made = caller.started()
    wait_until(lambda: shop.gateway.requests(API_AGENT), what="the agent's call")
    look_for_workflows(monkeypatch)
    assert caller.read(made)["runs"][0]["state"] == "running"
    shop.gateway.release()
    caller.wait_for(made, "done")


def test_a_user_who_left_gets_no_further_work(
    shop: World, caller: Caller, worker, member: User, monkeypatch
):
    monkeypatch.setattr(running, "start_or_keep", lambda _task: None)
    caller.started()
    User.objects.filter(pk=member.pk).update(is_active=False)
    task = CodingTask.objects.get()
    client.start_api_task(task)
    wait_for_close(task.workflow_id)
    assert (TaskRun.objects.get().state, TaskRun.objects.get().error) == ("failed", "OwnerLeft")
    assert shop.gateway.requests(API_AGENT) == []


def test_the_history_holds_no_words(shop: World, caller: Caller, worker):
    shop.gateway.answer_next("A very particular answer.")
    made = caller.started("A very particular request.")
    caller.wait_for(made, "done")
    wait_for_close(workflow_ids()[0])
    text = str(history(workflow_ids()[0]))
    assert made["id"] in text
    assert "very particular" not in text


# --- Transcripts ---------------------------------------------------------------------------------
def test_a_transcript_is_masked_and_bounded(shop: World, caller: Caller):
    made = caller.started()
    run = TaskRun.objects.get()
    secret = "phx_" + "a" * 40
    events = [
        {"type": "session", "id": "s"},
        *({"type": "result", "text": f"{number}" * 3_000, "failed": False} for number in range(20)),
        {"type": "command", "command": f"curl -H {secret}"},
        {"type": "tokens", "input": 10, "output": 5, "cached": 0},
    ]
    RunEvent.objects.bulk_create(
        RunEvent(run=run, number=number, event=event) for number, event in enumerate(events)
    )
    [shown] = caller.read(made)["runs"]
    kinds = [step["type"] for step in shown["transcript"]]
    assert kinds[-3:] == ["result", "command", "tokens"]
    assert "session" not in kinds
    assert shown["transcript"][-2]["command"] == "curl -H •••"
    assert shown["transcript_left_out"] == 22 - len(kinds) > 0
    assert sum(len(str(step)) for step in shown["transcript"]) < 60_000


# --- Erasure -------------------------------------------------------------------------------------
def test_what_a_user_asked_for_is_erased_and_their_work_ends(
    shop: World, caller: Caller, worker, member: User
):
    done = caller.started("A first secret.", key="k-1")
    caller.wait_for(done, "done")
    shop.gateway.hold_next()
    working = caller.started("A second secret.")
    wait_until(lambda: len(shop.gateway.requests(API_AGENT)) == 2, what="the agent's call")
    program = caller_for(shop, caller.client, user=None).started("Not theirs.")
    call_command("erase_user", "ada")
    shop.gateway.release()
    for task in (done, working):
        [run] = caller.read(task)["runs"]
        assert (run["request"], run["answer"]) == ("[erased]", "[erased]")
        assert caller.read(task)["title"] == "[erased]"
        assert caller.message(task, "go on").status_code == 403
    assert caller.create("A first secret.", key="k-1").status_code == 422
    wait_for_close(CodingTask.objects.get(pk=working["id"]).workflow_id)
    assert TaskRun.objects.get(task=working["id"]).answer == "[erased]"
    assert caller.read(program)["title"] == "Not theirs."
    assert not CodingTask.objects.filter(user=member).exists()
