"""Choosing a mention's repository: named, default, likely or picked."""

import pytest

from coding_tasks.agent_choice import READER
from coding_tasks.models import ChannelDefault, CodingTask, Repository, RepositoryRule
from coding_tasks.reading.assignments import trace_of
from projects.models import OAuthAccessToken, Organization, Project
from tests.conftest import wait_until
from tests.workflows.fake_gateway import AGENT, CLASSIFIER
from tests.workflows.temporal_server import wait_for_close
from tests.workflows.world import World
from workflows import tasks
from workflows.mention_types import NO_REPOSITORY, RepositoryChoice
from workflows.models import Mention, Notice
from workflows.slack import picker
from workflows.slack.block_kit import footer_of
from workflows.temporal import client

pytestmark = pytest.mark.usefixtures("worker")


def chosen() -> str:
    return CodingTask.objects.get().repository.full_name


def choose(mention: Mention, repository: Repository) -> None:
    client.signal_repository_choice(mention.workflow_id, RepositoryChoice(repository.pk))


def wait_for_picker(world: World, mention: Mention) -> Notice:
    world.wait_until_said(mention.ts, 1)
    [notice] = world.notices(Notice.Kind.PICKER)
    return notice


def test_a_team_without_a_repository_is_told_so(world: World):
    mention = world.handle()
    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "no repository")
    assert "no repository to work on" in world.said(mention.ts)[0]


@pytest.mark.parametrize(
    "text",
    [
        "in acme/billing, what is this?",
        "look at ACME/Billing.",
        "see <https://github.com/acme/billing/issues/7>",
        "git clone https://github.com/acme/billing.git",
    ],
)
def test_the_repository_that_the_text_names_is_taken(two_repositories: World, text):
    assert two_repositories.handle(text).state == Mention.State.ANSWERED
    assert chosen() == "acme/billing"
    assert two_repositories.gateway.requests(CLASSIFIER) == []


def test_the_channels_default_is_taken_when_the_text_names_none(two_repositories: World):
    world = two_repositories
    billing = Repository.objects.get(full_name="acme/billing")
    ChannelDefault.objects.create(workspace=world.workspace, channel_id="C1", repository=billing)
    world.handle("not acme/billing-old, nor my-acme/billing, nor acme/billing.js")
    assert chosen() == "acme/billing"
    assert world.gateway.requests(CLASSIFIER) == []


def test_a_named_repository_beats_the_channels_default(two_repositories: World):
    world = two_repositories
    billing = Repository.objects.get(full_name="acme/billing")
    ChannelDefault.objects.create(workspace=world.workspace, channel_id="C1", repository=billing)
    world.handle("what does acme/shop sell?")
    assert chosen() == "acme/shop"


def add_rule(world: World, keyword: str, name: str, position: int = 100) -> RepositoryRule:
    repository = Repository.objects.get(full_name=name)
    project = repository.project
    return RepositoryRule.objects.create(
        project=project, keyword=keyword, repository=repository, position=position
    )


def test_a_rule_decides_before_the_channels_default(two_repositories: World):
    world = two_repositories
    shop = Repository.objects.get(full_name="acme/shop")
    ChannelDefault.objects.create(workspace=world.workspace, channel_id="C1", repository=shop)
    add_rule(world, "invoices", "acme/billing")
    world.handle("how are *INVOICES* sent?")
    assert chosen() == "acme/billing"
    assert world.gateway.requests(CLASSIFIER) == []


def test_a_named_repository_beats_a_rule(two_repositories: World):
    add_rule(two_repositories, "invoices", "acme/billing")
    two_repositories.handle("does acme/shop print invoices?")
    assert chosen() == "acme/shop"


def test_the_rule_with_the_lowest_position_decides(two_repositories: World):
    add_rule(two_repositories, "invoices", "acme/billing", position=2)
    add_rule(two_repositories, "print", "acme/shop", position=1)
    two_repositories.handle("where do we print invoices?")
    assert chosen() == "acme/shop"


def test_a_rule_of_another_project_does_not_apply(two_repositories: World, stranger: Project):
    world = two_repositories
    theirs = Repository.objects.create(
        project=stranger, full_name="theirs/secret", clone_url="file:///nowhere"
    )
    RepositoryRule.objects.create(project=stranger, keyword="invoices", repository=theirs)
    # The form refuses this rule. It can exist if its repository moved to another project.
    RepositoryRule.objects.create(project=world.project, keyword="invoices", repository=theirs)
    world.gateway.script("acme/billing", "It sends invoices.")
    world.handle("how are invoices sent?")
    assert chosen() == "acme/billing"
    assert len(world.gateway.requests(CLASSIFIER)) == 1


def test_a_question_about_no_repository_is_answered_without_code(two_repositories: World):
    world = two_repositories
    world.gateway.script("none", "A monad is a monoid.", "In the category of endofunctors.")
    mention = world.start("with claude, what is a monad?")
    wait_for_picker(world, mention)
    client.signal_repository_choice(mention.workflow_id, RepositoryChoice(NO_REPOSITORY))
    world.wait_for_end(mention, Mention.State.ANSWERED)
    task = CodingTask.objects.get()
    assert (task.repository, task.agent) == (None, READER)
    system = world.gateway.requests(AGENT)[0].body["system"]
    assert "about no repository" in system
    assert "acme/" not in system
    [answer] = world.notices(Notice.Kind.ANSWER)
    assert " · no repository · " in footer_of(answer.blocks)[0]["elements"][0]["text"]
    world.reply(mention, "where?")
    wait_until(
        lambda: world.wait_until_said(mention.ts, 3)[0] == "Repository: *none*",
        what="the choice in place of the picker",
    )


def test_a_small_model_guesses_with_a_token_of_its_own(two_repositories: World):
    world = two_repositories
    world.gateway.answer_next("`acme/billing`")
    world.gateway.answer_next("It sends invoices.")

    mention = world.handle("how are invoices sent?")

    assert world.said(mention.ts) == ["It sends invoices."]
    assert chosen() == "acme/billing"
    [request] = world.gateway.requests(CLASSIFIER)
    assert request.body["model"] == "claude-haiku-4-5"
    assert "acme/shop" in request.body["system"]
    token = OAuthAccessToken.objects.get()
    assert (token.products, token.task_run_id) == (["slack_app_routing"], None)
    assert token.project == world.project
    assert token.distinct_id == "slack:T1:U1"


def test_a_small_model_is_not_asked_to_read_a_very_long_request(two_repositories: World):
    two_repositories.gateway.answer_next("acme/billing")
    two_repositories.handle("how are invoices sent? " + "x" * 30_000)
    [request] = two_repositories.gateway.requests(CLASSIFIER)
    assert len(request.body["messages"][0]["content"]) == 4_000


def test_two_named_repositories_are_left_to_the_model(two_repositories: World):
    two_repositories.gateway.answer_next("acme/shop")
    two_repositories.handle("does acme/shop call acme/billing?")
    assert chosen() == "acme/shop"


@pytest.mark.case("W7")
def test_a_classifier_without_credits_leads_to_a_denial_in_the_right_thread(
    two_repositories: World,
):
    world = two_repositories
    root = world.slack.post("good morning", user="U2")
    world.gateway.refuse_next("slack_app_routing")

    mention = world.handle("how are invoices sent?", thread_ts=root["ts"])

    assert mention.state == Mention.State.REFUSED
    [said] = world.said(root["ts"])
    assert "AI credits" in said
    assert "They reset on 2030-01-01." in said
    assert len(world.slack.bot_messages("C1")) == 1
    assert not CodingTask.objects.exists()


@pytest.mark.parametrize("guess", ["none", "acme/other", "I think acme/shop or acme/billing"])
def test_a_model_that_cannot_tell_leads_to_the_picker(two_repositories: World, guess):
    world = two_repositories
    world.gateway.answer_next(guess)
    mention = world.start("please help")
    notice = wait_for_picker(world, mention)
    assert notice.thread_ts == mention.ts
    [message] = world.slack.bot_messages("C1", mention.ts)
    [section] = message["blocks"]
    assert section["accessory"]["action_id"] == picker.ACTION_ID
    assert picker.mention_of(section["block_id"]) == mention.pk


def test_all_calls_of_a_mention_are_one_trace(two_repositories: World):
    world = two_repositories
    world.gateway.answer_next("acme/billing")
    mention = world.handle("please help")
    [choosing], [working] = world.gateway.requests(CLASSIFIER), world.gateway.requests(AGENT)
    assert choosing.headers["traceparent"] == working.headers["traceparent"]
    assert trace_of(mention.workflow_id) in choosing.headers["traceparent"]


@pytest.mark.case("W7")
def test_a_classifier_that_is_broken_leads_to_the_picker(two_repositories: World):
    world = two_repositories
    world.gateway.fail_next(500, times=2)
    mention = world.start("please help")
    wait_for_picker(world, mention)
    assert len(world.gateway.requests(CLASSIFIER)) == 2

    choose(mention, Repository.objects.get(full_name="acme/billing"))

    world.wait_for_end(mention, Mention.State.ANSWERED)
    assert chosen() == "acme/billing"

    def shows_choice() -> bool:
        tasks.deliver_pending_notices()
        return world.said(mention.ts)[0] == "Repository: *acme/billing*"

    wait_until(shows_choice, what="the choice in place of the picker")
    assert not world.slack.bot_messages("C1", mention.ts)[0].get("blocks")


@pytest.mark.case("S30")
def test_the_first_of_two_choices_counts(two_repositories: World):
    world = two_repositories
    world.gateway.answer_next("none")
    mention = world.start("please help")
    wait_for_picker(world, mention)
    choose(mention, Repository.objects.get(full_name="acme/billing"))
    choose(mention, Repository.objects.get(full_name="acme/shop"))
    world.wait_for_end(mention, Mention.State.ANSWERED)
    assert chosen() == "acme/billing"
    assert len(world.gateway.requests(AGENT)) == 1


@pytest.mark.case("S30", "W2")
def test_credits_that_end_while_the_picker_is_open_are_noticed_before_anything_is_made(
    two_repositories: World,
):
    world = two_repositories
    world.gateway.answer_next("none")
    mention = world.start("please help")
    wait_for_picker(world, mention)
    calls = {call.method for call in world.slack.calls()}
    world.limit()

    choose(mention, Repository.objects.get(full_name="acme/shop"))

    world.wait_for_end(mention, Mention.State.REFUSED)
    assert len(world.notices(Notice.Kind.DENIAL)) == 1
    assert "AI credits" in world.said(mention.ts)[1]
    assert {call.method for call in world.slack.calls()} == calls
    assert not CodingTask.objects.exists()
    assert world.gateway.requests(AGENT) == []


def test_a_repository_of_another_organization_cannot_be_chosen(two_repositories: World):
    world = two_repositories
    stranger = Project.objects.create(
        organization=Organization.objects.create(name="Stranger"), name="Theirs"
    )
    theirs = Repository.objects.create(
        project=stranger, full_name="theirs/secret", clone_url="file:///nowhere"
    )
    world.gateway.answer_next("none")
    mention = world.start("please help")
    wait_for_picker(world, mention)
    choose(mention, theirs)
    world.wait_for_end(mention, Mention.State.FAILED)
    assert not CodingTask.objects.exists()


@pytest.mark.case("S30")
def test_an_unused_picker_expires_with_a_message(two_repositories: World, hurried):
    hurried(picker_seconds=0.2)
    world = two_repositories
    world.gateway.answer_next("none")

    mention = world.handle("please help")

    assert (mention.state, mention.outcome) == (Mention.State.FAILED, "no repository was chosen")
    assert "no longer open" in world.said(mention.ts)[1]
    wait_for_close(mention.workflow_id)
    with pytest.raises(client.WorkflowEnded):
        choose(mention, Repository.objects.get(full_name="acme/shop"))
