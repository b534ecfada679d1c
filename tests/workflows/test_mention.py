"""Mentions on a real Temporal server, up to their answer or refusal."""

from functools import partial

import pytest
from temporalio.client import WorkflowExecutionStatus

from billing.allowances.caps import set_cap
from billing.allowances.limits import set_limit
from coding_tasks.models import CodingTask, Repository, TaskRun
from coding_tasks.repositories.bounds import BOUNDS
from projects.models import OAuthAccessToken
from quota import gate
from quota.resources import AI_CREDITS
from tests.conftest import wait_until
from tests.git_repositories import import_files
from tests.workflows.fake_gateway import AGENT
from tests.workflows.temporal_server import wait_for_close
from tests.workflows.threads import at_once
from tests.workflows.world import World
from workflows import denials, wording
from workflows.intake import mentions
from workflows.mention_types import RepositoryChoice
from workflows.models import Mention, Notice
from workflows.temporal import client

pytestmark = pytest.mark.usefixtures("worker")


def test_a_mention_is_answered_in_its_thread(shop: World):
    shop.gateway.answer_next("It is a shop.")

    mention = shop.handle("what is this?")

    assert (mention.state, mention.outcome) == (Mention.State.ANSWERED, "")
    assert mention.finished_at
    assert shop.said(mention.ts) == ["It is a shop."]
    assert shop.slack.reactions("C1", mention.ts) == ["eyes"]
    task = CodingTask.objects.get()
    assert (task.repository.full_name, task.title) == ("acme/shop", "what is this?")
    assert (task.thread_ts, task.owner_slack_user_id) == (mention.ts, "U1")
    assert task.state == CodingTask.State.ACTIVE
    assert mention.ts.replace(".", "") in task.permalink
    run = TaskRun.objects.get()
    assert (run.state, run.answer) == (TaskRun.State.SUCCEEDED, "It is a shop.")


def test_the_model_is_asked_with_a_token_of_the_run_and_sees_the_repository(shop: World):
    shop.handle("what is the &lt;answer&gt;? See <https://example.com/a|the page>")

    [request] = shop.gateway.requests(AGENT)
    assert request.headers["authorization"].startswith("Bearer pha_")
    assert "The answer is in the README." in request.body["system"]
    assert request.body["messages"] == [
        {"role": "user", "content": "what is the <answer>? See the page"}
    ]
    assert not OAuthAccessToken.objects.exists()


def test_a_mention_in_a_thread_is_answered_in_that_thread(shop: World):
    root = shop.slack.post("good morning", user="U2")

    mention = shop.handle("what is this?", thread_ts=root["ts"])

    assert mention.state == Mention.State.ANSWERED
    assert len(shop.said(root["ts"])) == 1
    assert CodingTask.objects.get().thread_ts == root["ts"]


def test_what_a_model_says_pings_nobody(shop: World):
    shop.gateway.answer_next("<!channel> a < b & <@U2>")
    mention = shop.handle()
    assert shop.said(mention.ts) == ["&lt;!channel&gt; a &lt; b &amp; &lt;@U2&gt;"]


# --- The gate ------------------------------------------------------------------------------------


@pytest.mark.case("Q8", "W1")
def test_a_limited_team_gets_one_denial_and_nothing_else_happens(two_repositories: World):
    world = two_repositories
    world.limit()

    mention = world.handle("please help")

    assert mention.state == Mention.State.REFUSED
    assert mention.outcome == "out of credits: set_by_hand"
    assert len(world.said(mention.ts)) == 1
    assert "AI credits" in world.said(mention.ts)[0]
    assert {call.method for call in world.slack.calls()} == {"chat.postMessage"}
    assert world.gateway.requests() == []
    assert not CodingTask.objects.exists()
    assert len(world.notices(Notice.Kind.DENIAL)) == 1


def test_a_user_over_their_cap_is_refused_by_the_workflow_too(shop: World):
    set_cap(shop.project.organization, AI_CREDITS, "user", 0)
    mention = shop.handle("please help")
    assert mention.outcome == "out of credits: user_cap_reached"
    assert shop.said(mention.ts)[0].startswith("You have used your share")
    assert not CodingTask.objects.exists()


@pytest.mark.case("S18")
def test_a_denial_goes_to_the_root_of_the_thread(shop: World):
    root = shop.slack.post("good morning", user="U2")
    shop.limit()
    shop.handle(thread_ts=root["ts"])
    assert len(shop.said(root["ts"])) == 1


def test_another_organization_is_not_affected_by_the_block(shop: World):
    shop.redis.zadd("@posthog/quota-limits/ai_credits", {"phc_of-a-stranger": 4102444800})
    assert shop.handle().state == Mention.State.ANSWERED


@pytest.mark.case("S21")
def test_the_gate_waits_while_the_quota_is_unknown(shop: World, monkeypatch):
    asked = []
    real = gate.check

    def unknown_twice(*arguments, **options):
        asked.append(len(shop.slack.calls()))
        if len(asked) <= 2:
            raise gate.QuotaUnknown("neither Redis nor the database can answer")
        return real(*arguments, **options)

    monkeypatch.setattr(gate, "check", unknown_twice)

    assert shop.handle().state == Mention.State.ANSWERED
    assert asked[:3] == [0, 0, 0]


@pytest.mark.case("W3")
def test_a_denial_whose_outcome_is_unknown_is_not_posted_twice(shop: World):
    shop.limit()
    shop.slack.drop_answer_next("chat.postMessage")
    mention = shop.handle()
    assert mention.state == Mention.State.REFUSED
    assert len(shop.said(mention.ts)) == 1
    assert shop.slack.calls("conversations.replies")


@pytest.mark.case("W3")
def test_a_mention_is_denied_once_though_webhook_and_workflow_both_gate(shop: World):
    mention = shop.mention()
    shop.limit()
    shop.slack.drop_answer_next("chat.postMessage")
    as_by_the_sweep = Mention.objects.get(pk=mention.pk)
    at_once(partial(mentions.admit, mention), partial(client.start_mention, as_by_the_sweep))
    wait_for_close(as_by_the_sweep.workflow_id)
    shop.wait_for_end(mention, Mention.State.REFUSED)
    shop.send_all()
    assert len(shop.said(mention.ts)) == 1
    assert len(shop.notices(Notice.Kind.DENIAL)) == 1
    assert not CodingTask.objects.exists()


@pytest.mark.case("Q13")
def test_a_wiped_redis_admits_nobody_over_the_limit(shop: World):
    set_limit(shop.project.organization, AI_CREDITS, 0)
    shop.redis.flushall()
    mention = shop.handle("please help")
    assert mention.outcome == "out of credits: limit_reached"
    assert shop.gateway.requests() == []
    assert not CodingTask.objects.exists()


@pytest.mark.case("W4")
def test_a_denial_that_the_thread_refuses_is_shown_to_the_author_alone(shop: World):
    shop.limit()
    shop.slack.fail_next("chat.postMessage", "is_archived")
    mention = shop.handle()
    assert mention.state == Mention.State.REFUSED
    assert shop.said(mention.ts) == []
    assert [each["visible_to"] for each in shop.slack.ephemeral_messages("C1")] == ["U1"]


@pytest.mark.case("W4")
def test_a_denial_that_slack_refuses_everywhere_ends_the_mention_all_the_same(shop: World):
    shop.limit()
    shop.slack.fail_next("chat.postMessage", "is_archived")
    shop.slack.fail_next("chat.postEphemeral", "channel_not_found")
    mention = shop.handle()
    assert mention.state == Mention.State.REFUSED
    [denial] = shop.notices(Notice.Kind.DENIAL)
    assert (denial.state, denial.error) == (Notice.State.GIVEN_UP, "channel_not_found")
    assert wait_for_close(mention.workflow_id) is WorkflowExecutionStatus.COMPLETED


@pytest.mark.case("W3")
def test_a_mention_denied_by_a_dead_attempt_is_not_begun_after_a_top_up(shop: World):
    mention = shop.mention()
    shop.limit()
    denial = denials.claim(mention, gate.check(shop.project, to_start=True))
    shop.top_up()
    client.start_mention(mention)
    shop.wait_for_end(mention, Mention.State.REFUSED)
    assert shop.said(mention.ts) == [denial.text]
    assert not CodingTask.objects.exists()


def test_a_task_that_was_denied_is_not_created_after_a_top_up(two_repositories: World):
    world = two_repositories
    world.gateway.answer_next("none")
    mention = world.start("please help")
    world.wait_until_said(mention.ts, 1)
    world.limit()
    denials.claim(mention, gate.check(world.project, to_start=True))
    world.top_up()
    chosen = Repository.objects.get(full_name="acme/shop")
    client.signal_repository_choice(mention.workflow_id, RepositoryChoice(chosen.pk))
    world.wait_for_end(mention, Mention.State.REFUSED)
    assert "AI credits" in world.said(mention.ts)[1]
    assert not CodingTask.objects.exists()


# --- Access --------------------------------------------------------------------------------------


@pytest.mark.case("S31")
def test_a_guest_is_told_that_guests_have_no_access_and_nothing_is_made(shop: World):
    mention = shop.handle(user="U3")
    assert (mention.state, mention.outcome) == (Mention.State.REFUSED, "no access: outsider")
    assert "full members" in shop.said(mention.ts)[0]
    assert not CodingTask.objects.exists()
    assert shop.gateway.requests() == []


@pytest.mark.case("S31")
def test_somebody_who_is_no_member_is_told_once_how_to_get_access(shop: World):
    shop.workspace.access = shop.workspace.Access.MEMBERS
    shop.workspace.save()
    mention = shop.handle(user="U2")
    assert (mention.state, mention.outcome) == (Mention.State.REFUSED, "no access: not_a_member")
    [said] = shop.said(mention.ts)
    assert "administrators" in said
    assert not CodingTask.objects.exists()
    assert shop.gateway.requests() == []


@pytest.mark.case("S31")
def test_access_is_checked_after_the_quota(shop: World):
    shop.limit()
    mention = shop.handle(user="U3")
    assert "AI credits" in shop.said(mention.ts)[0]
    assert shop.slack.calls("users.info") == []


def test_somebody_slack_does_not_know_has_no_access(shop: World):
    shop.slack.fail_next("users.info", "user_not_found")
    assert shop.handle().state == Mention.State.REFUSED


def test_a_slack_that_is_down_for_a_moment_delays_the_mention_only(shop: World):
    shop.slack.fail_next("users.info", "ratelimited", retry_after=0)
    shop.slack.fail_next("users.info", "internal_error", status=500)
    assert shop.handle().state == Mention.State.ANSWERED


def test_a_workspace_that_uninstalled_the_app_ends_the_mention(shop: World):
    mention = shop.mention()
    shop.workspace.is_active = False
    shop.workspace.save()

    client.start_mention(mention)
    shop.wait_for_end(mention, Mention.State.FAILED)
    assert mention.outcome == "SlackRefused"
    assert shop.slack.calls() == []


# --- Reactions and failures ----------------------------------------------------------------------


def test_work_does_not_depend_on_reaction_and_permalink(shop: World):
    shop.slack.fail_next("reactions.add", "not_reactable")
    shop.slack.fail_next("chat.getPermalink", "internal_error", status=500)
    mention = shop.handle()
    assert mention.state == Mention.State.ANSWERED
    assert shop.slack.reactions("C1", mention.ts) == []


def test_a_reaction_that_slack_delays_briefly_is_repeated(shop: World):
    shop.slack.fail_next("reactions.add", "ratelimited", retry_after=1)
    shop.slack.fail_next("chat.getPermalink", "ratelimited", retry_after=0)
    mention = shop.handle()
    assert mention.state == Mention.State.ANSWERED
    assert shop.slack.reactions("C1", mention.ts) == ["eyes"]
    assert CodingTask.objects.get().permalink


def test_a_reaction_that_slack_delays_for_long_is_left_out(shop: World):
    shop.slack.fail_next("reactions.add", "ratelimited", retry_after=60)
    mention = shop.handle()
    assert mention.state == Mention.State.ANSWERED
    assert len(shop.slack.calls("reactions.add")) == 1


def test_a_provider_that_fails_once_is_asked_again(shop: World):
    shop.gateway.fail_next(529, "overloaded_error")
    shop.gateway.answer_next("It is a shop.")
    mention = shop.handle()
    assert shop.said(mention.ts) == ["It is a shop."]
    assert len(shop.gateway.requests(AGENT)) == 2


def test_a_model_that_refuses_ends_the_task_with_a_message(shop: World):
    shop.gateway.fail_next(400, "invalid_request_error")

    mention = shop.handle()

    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "ModelRefused")
    assert "something went wrong" in shop.said(mention.ts)[0]
    wait_until(
        lambda: CodingTask.objects.get().state == CodingTask.State.FAILED, what="the task ending"
    )
    assert TaskRun.objects.get().error == "ModelRefused"
    assert len(shop.gateway.requests(AGENT)) == 1
    again = shop.handle("once more", thread_ts=mention.ts)
    assert again.state == Mention.State.ANSWERED


def test_a_provider_that_keeps_failing_is_given_up_after_the_stated_attempts(shop: World, hurried):
    hurried(attempts=2)
    shop.gateway.fail_next(503, "api_error", times=3)
    mention = shop.handle()
    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "ModelFailed")
    assert shop.said(mention.ts) == [
        "The AI provider did not answer, even after several attempts. Please try again later."
    ]
    assert len(shop.gateway.requests(AGENT)) == 2


def test_the_thread_is_told_if_the_repository_cannot_be_fetched(world: World):
    world.add_repository("acme/gone", "file:///nowhere/at/all")
    mention = world.handle()
    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "RepositoryRefused")
    assert "could not fetch acme/gone" in world.said(mention.ts)[0]
    assert world.gateway.requests() == []


def test_a_hostile_repository_is_refused_at_once_and_the_message_names_the_bounds(
    world: World, tmp_path
):
    world.add_repository("acme/deep", import_files(tmp_path / "deep", "d/" * 1_500 + "file"))
    mention = world.handle()
    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "RepositoryTooBig")
    assert world.said(mention.ts) == [wording.repository_too_big("acme/deep", BOUNDS)]
    assert world.gateway.requests() == []


def test_an_answer_that_slack_refuses_everywhere_is_kept(shop: World):
    shop.slack.fail_next("chat.postMessage", "is_archived", times=3)
    shop.slack.fail_next("chat.postEphemeral", "channel_not_found")
    mention = shop.handle()
    assert mention.state == Mention.State.FAILED
    assert mention.outcome == "the answer could not be posted: it is kept on the page of the thread"
    assert TaskRun.objects.get().state == TaskRun.State.SUCCEEDED
    [answer] = shop.notices("answer")
    assert (answer.state, answer.destination) == ("given_up", "page")


@pytest.mark.parametrize(
    ("error", "destination"), [("msg_too_long", "file"), ("is_archived", "dm")]
)
def test_an_answer_that_reaches_its_author_in_another_way_answers_the_mention(
    shop: World, error: str, destination: str
):
    shop.slack.fail_next("chat.postMessage", error)
    mention = shop.handle()
    assert (mention.state, mention.outcome) == (Mention.State.ANSWERED, "")
    [answer] = shop.notices("answer")
    assert (answer.state, answer.destination) == ("sent", destination)


def test_an_answer_whose_outcome_is_unknown_is_not_posted_twice(shop: World):
    shop.slack.drop_answer_next("chat.postMessage")
    mention = shop.handle()
    assert mention.state == Mention.State.ANSWERED
    assert len(shop.said(mention.ts)) == 1
    assert len(shop.gateway.requests(AGENT)) == 1


def test_a_programming_error_ends_the_mention_with_a_message(shop: World, monkeypatch):
    def broken(*_arguments, **_options):
        raise TypeError("a mistake")

    monkeypatch.setattr("coding_tasks.creation.create_task", broken)
    mention = shop.handle()
    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "TypeError")
    assert "something went wrong" in shop.wait_until_said(mention.ts, 1)[0]
