"""Waiting for our own gateway, or for held credits, uses up no attempt."""

import socket
import threading
from collections.abc import Iterator

import pytest
from temporalio.client import WorkflowExecutionStatus

from coding_tasks.models import CodingTask, TaskRun
from devstack.servers import free_port
from projects.models import OAuthAccessToken
from tests.conftest import wait_until
from tests.workflows.fake_gateway import AGENT, CLASSIFIER
from tests.workflows.temporal_server import cancel, history, wait_for_close
from tests.workflows.world import World
from workflows.models import Mention, Notice

pytestmark = pytest.mark.usefixtures("worker")

UNDECIDED = [
    ("store_unavailable", 503),
    ("authentication_unavailable", 503),
    ("quota_unknown", 503),
    ("too_many_concurrent_requests", 429),
]


def waits(mention: Mention) -> int:
    """Return how many timers the mention's workflow has begun."""
    events = history(mention.workflow_id).events
    return sum(event.HasField("timer_started_event_attributes") for event in events)


def wait_until_waiting(mention: Mention) -> None:
    wait_until(lambda: waits(mention), what="the workflow waiting")


@pytest.mark.parametrize(("reason", "status"), UNDECIDED)
def test_waiting_for_an_undecided_gateway_uses_no_attempts(shop: World, hurried, reason, status):
    hurried(attempts=1)
    shop.gateway.decline_next("slack_app", reason, status)
    mention = shop.handle()
    assert mention.state == Mention.State.ANSWERED
    assert len(shop.said(mention.ts)) == 1
    assert len(shop.gateway.requests(AGENT)) == 1
    assert not OAuthAccessToken.objects.exists()


def test_waiting_for_held_credits_uses_no_attempts(shop: World, hurried):
    hurried(attempts=1)
    shop.gateway.refuse_next("slack_app", retry=True)
    mention = shop.handle()
    assert mention.state == Mention.State.ANSWERED
    assert len(shop.said(mention.ts)) == 1
    assert len(shop.gateway.requests(AGENT)) == 1
    assert TaskRun.objects.get().waits == 0, "it was never paused for want of credits"


def test_no_token_is_valid_while_a_run_waits_for_the_gateway(shop: World, hurried, settings):
    hurried(attempts=1)
    gateway, settings.GATEWAY_URL = settings.GATEWAY_URL, f"http://127.0.0.1:{free_port()}"
    mention = shop.start()
    wait_until_waiting(mention)
    assert not OAuthAccessToken.objects.exists()
    settings.GATEWAY_URL = gateway
    shop.wait_for_end(mention, Mention.State.ANSWERED)
    assert len(shop.gateway.requests(AGENT)) == 1


def test_attempts_that_failed_before_a_wait_count(shop: World, hurried):
    hurried(attempts=2)
    shop.gateway.fail_next(503, "overloaded_error", times=9)
    shop.gateway.hold_next()
    mention = shop.start()
    wait_until(lambda: shop.gateway.requests(AGENT), what="the first attempt")
    shop.gateway.decline_next("slack_app", "store_unavailable")
    shop.gateway.release()
    shop.wait_for_end(mention, Mention.State.FAILED)
    assert mention.outcome == "ModelFailed"
    assert len(shop.gateway.requests(AGENT)) == 2
    assert shop.said(mention.ts)[0].startswith("The AI provider did not answer")


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        ("GatewayUnavailable", "my connection to the AI provider has been down"),
        ("CreditsHeld", "other tasks of your team are using the Tollgate AI credits that are left"),
    ],
)
def test_the_thread_is_told_what_a_run_waited_for_in_vain(
    shop: World, hurried, settings, cause, said
):
    settings.BOT_NAME = "Tollgate"
    hurried(outage_seconds=0)
    if cause == "CreditsHeld":
        shop.gateway.refuse_next("slack_app", retry=True, times=9)
    else:
        shop.gateway.decline_next("slack_app", "store_unavailable", times=9)
    mention = shop.handle()
    assert (mention.state, mention.outcome) == (Mention.State.FAILED, cause)
    [text] = shop.said(mention.ts)
    assert said in text
    assert "did not answer" not in text
    assert TaskRun.objects.get().state == TaskRun.State.FAILED


def test_a_mention_can_be_cancelled_while_it_waits(shop: World):
    shop.gateway.decline_next("slack_app", "store_unavailable", times=99)
    mention = shop.start()
    wait_until_waiting(mention)
    cancel(mention.workflow_id)
    assert wait_for_close(mention.workflow_id) == WorkflowExecutionStatus.CANCELED
    assert CodingTask.objects.get().state == CodingTask.State.FAILED
    assert shop.gateway.requests(AGENT) == []


@pytest.fixture
def dying() -> Iterator[str]:
    """The address of a gateway that dies during every call."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def die() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1)

        thread = threading.Thread(target=die)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_lost_answers_are_asked_for_again_a_few_times_only(shop: World, hurried, settings, dying):
    hurried(lost_answers=1)
    settings.GATEWAY_URL = dying
    mention = shop.handle()
    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "AnswerLost")
    assert "my connection to the AI provider" in shop.said(mention.ts)[0]
    assert waits(mention) == 1


@pytest.mark.parametrize("held", [False, True])
def test_while_a_repository_is_guessed_a_wait_brings_no_picker(two_repositories: World, held):
    world = two_repositories
    if held:
        world.gateway.refuse_next("slack_app_routing", retry=True, times=3)
    else:
        world.gateway.decline_next("slack_app_routing", "store_unavailable", times=3)
    world.gateway.script("acme/billing", "Invoices.")
    mention = world.handle("how are invoices sent?")
    assert mention.state == Mention.State.ANSWERED
    assert world.said(mention.ts) == ["Invoices."]
    assert len(world.gateway.requests(CLASSIFIER)) == 1


def test_a_mention_whose_repository_cannot_be_guessed_for_long_ends_with_the_true_cause(
    two_repositories: World, hurried
):
    world = two_repositories
    hurried(outage_seconds=0)
    world.gateway.decline_next("slack_app_routing", "store_unavailable")
    mention = world.handle("how are invoices sent?")
    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "GatewayUnavailable")
    assert "my connection to the AI provider" in world.said(mention.ts)[0]
    assert world.notices(Notice.Kind.PICKER) == []
    assert not CodingTask.objects.exists()
