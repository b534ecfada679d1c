"""An outage of the database during a run costs neither the run nor a second answer."""

import pytest

from coding_tasks.models import TaskRun
from projects.models import OAuthAccessToken
from tests.conftest import wait_until
from tests.workflows.fake_gateway import AGENT, CLASSIFIER
from tests.workflows.outage import MINTING, Outage
from tests.workflows.world import World
from workflows.models import Mention

pytestmark = pytest.mark.usefixtures("outage", "worker")


def test_an_outage_uses_no_attempts(shop: World, outage: Outage, hurried):
    hurried(attempts=1)
    outage.begin_at(MINTING)
    mention = shop.start()
    outage.wait_until_noticed()
    outage.end()
    shop.wait_for_end(mention, Mention.State.ANSWERED)
    assert len(shop.said(mention.ts)) == 1
    assert len(shop.gateway.requests(AGENT)) == 1


def test_an_answer_that_cannot_be_stored_at_once_is_not_asked_for_again(
    shop: World, outage: Outage
):
    shop.gateway.hold_next()
    mention = shop.start()
    wait_until(lambda: shop.gateway.requests(AGENT), what="the agent asking the model")
    outage.begin()
    shop.gateway.release()
    outage.wait_until_noticed(2)
    outage.end()
    shop.wait_for_end(mention, Mention.State.ANSWERED)
    assert len(shop.gateway.requests(AGENT)) == 1
    assert len(shop.said(mention.ts)) == 1
    assert not OAuthAccessToken.objects.exists()


def test_attempts_before_an_outage_count(shop: World, outage: Outage, hurried):
    hurried(attempts=3)
    shop.gateway.fail_next(503, "api_error", times=5)
    shop.gateway.hold_next()
    mention = shop.start()
    wait_until(lambda: shop.gateway.requests(AGENT), what="the agent asking the model")
    outage.begin_at(MINTING)
    shop.gateway.release()
    outage.wait_until_noticed()
    outage.end()
    shop.wait_for_end(mention, Mention.State.FAILED)
    assert mention.outcome == "ModelFailed"
    assert len(shop.gateway.requests(AGENT)) == 3


def test_the_thread_is_told_after_an_outage_that_ended_its_run(
    shop: World, outage: Outage, hurried
):
    hurried(outage_seconds=0)
    outage.begin_at(MINTING)
    mention = shop.start()
    outage.wait_until_noticed(2)
    outage.end()
    shop.wait_for_end(mention, Mention.State.FAILED)
    assert mention.outcome == "StoresOut"
    [said] = shop.said(mention.ts)
    assert said.startswith("I gave up: a part of me has been down for too long.")
    assert TaskRun.objects.get().state == TaskRun.State.FAILED


def test_an_outage_while_a_repository_is_guessed_brings_no_picker(
    two_repositories: World, outage: Outage
):
    world = two_repositories
    world.gateway.script("acme/billing", "Invoices.")
    outage.begin_at(MINTING)
    mention = world.start("how are invoices sent?")
    outage.wait_until_noticed()
    outage.end()
    world.wait_for_end(mention, Mention.State.ANSWERED)
    assert world.said(mention.ts) == ["Invoices."]
    assert len(world.gateway.requests(CLASSIFIER)) == 1
