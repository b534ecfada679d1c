"""An answered request that starts anew on another repository, from the choice to the answer."""

import pytest

from coding_tasks.models import CodingTask, Repository
from tests.workflows.fake_gateway import AGENT, CLASSIFIER
from tests.workflows.world import World
from workflows.intake import follow_ups, mentions, starting_anew
from workflows.mention_types import NO_REPOSITORY
from workflows.models import FollowUp, Mention, Notice

pytestmark = pytest.mark.usefixtures("worker")


def start_anew(world: World, mention: Mention, repository_id: int) -> Mention:
    run = CodingTask.objects.get(workflow_id=mention.workflow_id).runs.get()
    starting_anew.offer_picker(run, "U1", "1.1")
    world.send_all()
    anew = starting_anew.start(mention, repository_id)
    mentions.admit(anew)
    return anew


def test_the_request_is_answered_again_about_the_other_repository(two_repositories: World):
    world = two_repositories
    world.gateway.script("acme/shop", "It is a shop.", "It sends invoices.", "By mail.")
    mention = world.handle("what is this?")
    billing = Repository.objects.get(full_name="acme/billing")

    anew = start_anew(world, mention, billing.pk)

    world.wait_for_end(anew, Mention.State.ANSWERED)
    assert world.wait_until_said(mention.ts, 3)[-1] == "It sends invoices."
    first, second = CodingTask.objects.order_by("created_at")
    assert (first.state, first.repository.full_name) == ("done", "acme/shop")
    assert (second.state, second.repository.full_name) == ("active", "acme/billing")
    assert second.runs.get().request == "what is this?"
    assert len(world.gateway.requests(CLASSIFIER)) == 1

    reply = world.posted_reply(mention, "how?")
    reply.workflow_id = second.workflow_id
    reply.save()
    follow_ups.signal(reply)
    world.wait_for_follow_up(reply, FollowUp.State.HANDLED)
    assert world.wait_until_said(mention.ts, 4)[-1] == "By mail."


def test_the_request_is_answered_again_without_a_repository(two_repositories: World):
    world = two_repositories
    world.gateway.script("acme/shop", "It is a shop.", "I see no code.")
    mention = world.handle("what is this?")
    anew = start_anew(world, mention, NO_REPOSITORY)
    world.wait_for_end(anew, Mention.State.ANSWERED)
    assert "about no repository" in world.gateway.requests(AGENT)[1].body["system"]
    assert CodingTask.objects.get(state="active").repository is None


def test_a_chosen_repository_that_is_gone_is_chosen_again(two_repositories: World):
    world = two_repositories
    world.gateway.script("acme/shop", "It is a shop.", "It is a shop.")
    mention = world.handle("what is this?")
    billing = Repository.objects.get(full_name="acme/billing")
    number = billing.pk
    billing.delete()
    anew = start_anew(world, mention, number)
    world.wait_for_end(anew, Mention.State.ANSWERED)
    assert CodingTask.objects.get(state="active").repository.full_name == "acme/shop"
    assert len(world.notices(Notice.Kind.ANSWER)) == 2
