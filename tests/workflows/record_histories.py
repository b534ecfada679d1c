"""Play each story on a real Temporal server and store its history in `histories/`.

    python -m pytest tests/workflows/record_histories.py

Run it when the workflow gains a story. A history that exists says what runs in the field look like:
replace one only when no such run can exist any more.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils import timezone

from coding_tasks import api_tasks
from coding_tasks.api_tasks import NewTask
from coding_tasks.models import CodingTask, Repository, TaskRun
from tests.conftest import wait_until
from tests.workflows.before_the_gate import WorkflowBeforeTheGate
from tests.workflows.fake_gateway import API_AGENT
from tests.workflows.outage import MINTING
from tests.workflows.temporal_server import history, wait_for_close
from tests.workflows.worker_thread import WorkerThread
from tests.workflows.world import World
from workflows import tasks
from workflows.mention_types import RepositoryChoice
from workflows.models import CostConfirmation, FollowUp, Mention, RunQuote
from workflows.quotes import answering
from workflows.temporal import client, worker

HISTORIES = Path(__file__).parent / "histories"


def keep(name: str, workflow_id: str) -> None:
    """Write the history, without the name of the machine that recorded it."""
    recorded = _anonymous(json.loads(history(workflow_id).to_json()))
    text = json.dumps({"workflow_id": workflow_id, "history": recorded}, indent=1)
    (HISTORIES / f"{name}.json").write_text(text + "\n")


def _anonymous(node):
    if isinstance(node, dict):
        return {name: _anonymous(each) for name, each in node.items() if name != "stackTrace"}
    if isinstance(node, list):
        return [_anonymous(each) for each in node]
    return re.sub(r"^\d+@.*", "recorder", node) if isinstance(node, str) else node


@pytest.fixture
def before_the_gate(world: World, settings, monkeypatch) -> Iterator[None]:
    """A worker that runs the workflow as it was."""
    monkeypatch.setattr(worker, "MentionWorkflow", WorkflowBeforeTheGate)
    with WorkerThread(settings.TEMPORAL_TASK_QUEUE):
        yield


def converse(shop: World) -> Mention:
    mention = shop.handle("what is this?")
    shop.reply(mention, "and what does it sell?")
    shop.wait_until_said(mention.ts, 2)
    return mention


def wait_for_picker(world: World) -> Mention:
    world.gateway.answer_next("none")
    mention = world.start("please help")
    world.wait_until_said(mention.ts, 1)
    return mention


def test_a_conversation_begun_before_the_gate(before_the_gate, shop: World, hurried):
    hurried(idle_seconds=1)
    mention = converse(shop)
    wait_for_close(mention.workflow_id)
    keep("before-the-gate", mention.workflow_id)


def test_an_open_picker_of_before_the_gate(before_the_gate, two_repositories: World):
    mention = wait_for_picker(two_repositories)
    keep("before-the-gate-picker-open", mention.workflow_id)


def test_a_refusal(worker, shop: World):
    shop.limit()
    mention = shop.handle()
    wait_for_close(mention.workflow_id)
    keep("refused", mention.workflow_id)


def test_no_access(worker, shop: World):
    mention = shop.handle(user="U3")
    wait_for_close(mention.workflow_id)
    keep("no-access", mention.workflow_id)


def test_one_repository_and_follow_ups(worker, shop: World, hurried):
    hurried(idle_seconds=1)
    mention = converse(shop)
    wait_for_close(mention.workflow_id)
    keep("one-repository-and-follow-up", mention.workflow_id)


def test_a_denied_follow_up(worker, shop: World):
    mention = shop.handle()
    shop.limit()
    follow_up = shop.reply(mention, "<@UBOT> more", addressed=True)
    shop.wait_for_follow_up(follow_up, FollowUp.State.REFUSED)
    shop.wait_until_said(mention.ts, 2)
    shop.top_up()
    shop.reply(mention, "and now?")
    shop.wait_until_said(mention.ts, 3)
    keep("denied-follow-up", mention.workflow_id)


def test_a_classified_repository(worker, two_repositories: World, hurried):
    hurried(idle_seconds=0.2)
    two_repositories.gateway.answer_next("acme/billing")
    mention = two_repositories.handle("how are invoices sent?")
    wait_for_close(mention.workflow_id)
    keep("classified", mention.workflow_id)


def test_a_classifier_without_credits(worker, two_repositories: World):
    two_repositories.gateway.refuse_next("slack_app_routing")
    mention = two_repositories.handle("how are invoices sent?")
    wait_for_close(mention.workflow_id)
    keep("classifier-refused", mention.workflow_id)


def test_a_picked_repository(worker, two_repositories: World, hurried):
    hurried(idle_seconds=0.2)
    mention = wait_for_picker(two_repositories)
    chosen = RepositoryChoice(Repository.objects.get(full_name="acme/shop").pk)
    client.signal_repository_choice(mention.workflow_id, chosen)
    wait_for_close(mention.workflow_id)
    keep("picked", mention.workflow_id)


def test_a_picker_that_expired(worker, two_repositories: World, hurried):
    hurried(picker_seconds=0.2)
    two_repositories.gateway.answer_next("none")
    mention = two_repositories.handle("please help")
    wait_for_close(mention.workflow_id)
    keep("picker-expired", mention.workflow_id)


def test_a_paused_run(worker, shop: World, hurried):
    hurried(recheck_seconds=0.3, idle_seconds=0.2)
    shop.gateway.refuse_next("slack_app")
    shop.limit_after_next_gate()
    mention = shop.start()
    shop.wait_until_said(mention.ts, 1)
    shop.top_up()
    wait_for_close(mention.workflow_id)
    keep("paused", mention.workflow_id)


def test_a_run_paused_twice_and_woken(worker, shop: World, hurried):
    hurried(recheck_seconds=0.3, idle_seconds=0.2)
    shop.gateway.refuse_next("slack_app", times=2)
    mention = shop.start()
    shop.wait_until_said(mention.ts, 1)
    client.signal_credits_gained(mention.workflow_id)
    wait_for_close(mention.workflow_id)
    keep("paused-twice-and-woken", mention.workflow_id)


def waiting_for_an_answer(shop: World) -> Mention:
    """Start a mention that asks before it begins, and wait for the question."""
    CostConfirmation.objects.create(project=shop.project, ask_above_micro=0)
    mention = shop.start()
    shop.wait_until_said(mention.ts, 1)
    return mention


def answer(shop: World, mention: Mention, wanted: str) -> None:
    run = TaskRun.objects.get(message_ts=mention.ts)
    answering.answer(shop.workspace, run.pk, "U1", wanted, timezone.now())
    tasks.settle_quotes()


def test_a_quote_that_was_accepted(worker, shop: World, hurried):
    hurried(idle_seconds=0.2)
    mention = waiting_for_an_answer(shop)
    answer(shop, mention, RunQuote.State.ACCEPTED)
    wait_for_close(mention.workflow_id)
    keep("quote-accepted", mention.workflow_id)


def test_a_quote_that_was_cancelled(worker, shop: World):
    mention = waiting_for_an_answer(shop)
    answer(shop, mention, RunQuote.State.CANCELLED)
    wait_for_close(mention.workflow_id)
    keep("quote-cancelled", mention.workflow_id)


def test_a_quote_that_expired(worker, shop: World, hurried):
    hurried(quote_seconds=0.5)
    mention = waiting_for_an_answer(shop)
    wait_for_close(mention.workflow_id)
    keep("quote-expired", mention.workflow_id)


def test_a_failed_run(worker, shop: World):
    shop.gateway.fail_next(400, "invalid_request_error")
    mention = shop.handle()
    wait_for_close(mention.workflow_id)
    keep("failed", mention.workflow_id)


def test_a_run_that_outlasts_an_outage_of_the_database(outage, worker, shop: World, hurried):
    """`before-outlasting-outages` is this story with one attempt, when an outage used it up."""
    hurried(idle_seconds=0.2)
    outage.begin_at(MINTING)
    mention = shop.start()
    outage.wait_until_noticed()
    outage.end()
    wait_for_close(mention.workflow_id)
    keep("outage-outlasted", mention.workflow_id)


def test_a_run_that_waits_for_the_gateway(worker, shop: World, hurried):
    hurried(idle_seconds=0.2)
    shop.gateway.decline_next("slack_app", "store_unavailable")
    shop.gateway.refuse_next("slack_app", retry=True)
    mention = shop.handle()
    wait_for_close(mention.workflow_id)
    keep("gateway-waited-for", mention.workflow_id)


def test_a_guess_that_waits_for_the_gateway_in_vain(worker, two_repositories: World, hurried):
    hurried(outage_seconds=1)
    two_repositories.gateway.decline_next("slack_app_routing", "store_unavailable", times=9)
    mention = two_repositories.handle("how are invoices sent?")
    wait_for_close(mention.workflow_id)
    keep("guess-given-up", mention.workflow_id)


def test_a_mention_that_joins_a_task(worker, shop: World):
    first = shop.handle()
    second = shop.handle("and this?", thread_ts=first.ts)
    wait_for_close(second.workflow_id)
    keep("joined", second.workflow_id)


def api_task(shop: World) -> CodingTask:
    """Start a task over the API."""
    new = NewTask(Repository.objects.get(), CodingTask.Origin.API, None, "what is this?")
    task = api_tasks.create(new).task
    client.start_api_task(task)
    return task


def test_a_task_over_the_api_with_a_message(worker, shop: World):
    shop.gateway.hold_next()
    task = api_task(shop)
    wait_until(lambda: shop.gateway.requests(API_AGENT), what="the agent's call")
    api_tasks.add_message(task, "and what does it sell?")
    client.start_api_task(task)
    shop.gateway.release()
    wait_for_close(task.workflow_id)
    keep("api-task-and-message", task.workflow_id)


def test_a_paused_task_over_the_api(worker, shop: World):
    shop.gateway.refuse_next("posthog_code")
    task = api_task(shop)
    wait_until(lambda: TaskRun.objects.get().state == TaskRun.State.PAUSED, what="the pause")
    client.signal_credits_gained(task.workflow_id)
    wait_for_close(task.workflow_id)
    keep("api-task-paused", task.workflow_id)
