"""The repository picker: who may search and choose, and what is refused."""

import uuid

import pytest

from coding_tasks.models import Repository
from projects.models import SlackWorkspace
from tests.slack_bot.conftest import captured
from tests.stopwatch import Stopwatch
from workflows import notices, tasks
from workflows.models import Mention, Notice
from workflows.slack import picker
from workflows.slack.picker import Choice

PATH = "/slack/interactivity/"


@pytest.fixture
def mention(webhook, workspace, repository, temporal) -> Mention:
    """A mention of U1 with a posted picker, whose workflow waits for a choice."""
    webhook.mention()
    mention = Mention.objects.get()
    offer = notices.claim(
        f"picker:{mention.pk}",
        Notice.Kind.PICKER,
        mention,
        "Which?",
        blocks=picker.blocks(mention.pk, "U1"),
    )
    notices.deliver(offer)
    return mention


def send(webhook, payload):
    return webhook.deliver({"payload": payload}, PATH)


def search(mention, value="", user="U1", **fields):
    payload = captured("repository_searched")
    payload |= {"block_id": picker.block_id(mention.pk), "value": value, **fields}
    payload["user"]["id"] = user
    return payload


def choose(mention, repository, user="U1", value=None, block_id=None):
    payload = captured("repository_chosen")
    [action] = payload["actions"]
    action["block_id"] = picker.block_id(mention.pk) if block_id is None else block_id
    if value is None:
        value = picker.value(Choice(mention.pk, repository.pk))
    action["selected_option"]["value"] = value
    payload["user"]["id"] = user
    message_ts = Notice.objects.get(kind="picker", mention=mention).message_ts
    payload["container"]["message_ts"] = message_ts
    return payload


def told(webhook) -> list[str]:
    """Send due notices; return what the thread was told besides the picker."""
    tasks.deliver_pending_notices()
    return [
        message["text"] for message in webhook.slack.bot_messages("C1") if not message.get("blocks")
    ]


# --- Searching -----------------------------------------------------------------------------------
@pytest.mark.case("S30")
def test_a_search_over_hundreds_of_repositories_answers_fast_with_a_hundred_at_most(
    webhook, mention, project
):
    Repository.objects.bulk_create(
        Repository(project=project, full_name=f"acme/service-{n:03}", clone_url="https://x/y")
        for n in range(250)
    )
    with Stopwatch() as waited:
        everything = send(webhook, search(mention)).json()["options"]
        one = send(webhook, search(mention, "SERVICE-249")).json()["options"]
    assert waited.seconds < 3
    assert len(everything) == 100
    assert everything[0]["text"]["text"] == "No repository: just answer"
    assert [option["text"]["text"] for option in one] == ["acme/service-249"]


def test_options_are_as_short_as_slack_wants_them(webhook, mention, project):
    Repository.objects.create(
        project=project, full_name=f"acme/{'very-' * 30}long", clone_url="https://x/y"
    )
    for option in send(webhook, search(mention)).json()["options"]:
        assert len(option["text"]["text"]) <= 75
        assert len(option["value"]) <= 150


def test_a_search_finds_no_repository_of_another_organization(webhook, mention, stranger):
    Repository.objects.create(project=stranger, full_name="theirs/shop", clone_url="https://x/y")
    options = send(webhook, search(mention, "shop")).json()["options"]
    assert [option["text"]["text"] for option in options] == ["acme/shop"]


def test_another_user_finds_no_repositories(webhook, mention):
    assert send(webhook, search(mention, user="U2")).json() == {"options": []}


def test_a_forged_picker_finds_no_repositories(webhook, mention):
    assert send(webhook, search(mention, block_id="forged")).json() == {"options": []}


# --- Choosing ------------------------------------------------------------------------------------
def test_a_choice_in_a_channel_that_another_company_hosts_reaches_the_workflow(
    webhook, mention, repository, temporal
):
    payload = choose(mention, repository)
    payload["team"] = {"id": "T9", "domain": "hosts"}
    assert send(webhook, payload).status_code == 200
    assert temporal.signals(mention.workflow_id) == ["repository_chosen"]


def test_a_choice_from_another_workspace_reaches_nobody(webhook, mention, repository, temporal):
    payload = choose(mention, repository)
    payload["team"] = {"id": "T9", "domain": "hosts"}
    payload["user"]["team_id"] = "T9"
    send(webhook, payload)
    assert temporal.signals(mention.workflow_id) == []


def test_the_picker_says_who_can_choose():
    [block] = picker.blocks(uuid.uuid4(), "U1")
    assert "Only <@U1> can choose." in block["text"]["text"]


def test_a_choice_reaches_the_workflow(webhook, mention, repository, temporal):
    webhook.slack.slack.forget_calls()
    assert send(webhook, choose(mention, repository)).status_code == 200
    assert temporal.signals(mention.workflow_id) == ["repository_chosen"]
    assert webhook.slack.calls() == []
    assert told(webhook) == []


@pytest.mark.case("S30")
def test_somebody_else_chooses_nothing_and_is_told_once(webhook, mention, repository, temporal):
    for _ in range(2):
        send(webhook, choose(mention, repository, user="U2"))
    assert temporal.signals(mention.workflow_id) == []
    [text] = told(webhook)
    assert "<@U2>" in text
    assert "<@U1>" in text
    assert Notice.objects.get(kind="picker_refusal").user_id == "U2"


@pytest.mark.case("S30")
@pytest.mark.parametrize(
    "value", ["", "forged", "7|7", "a:b", "\0", "é" * 150, "0" * 32 + "|1:signature"]
)
def test_a_forged_value_chooses_nothing_and_the_thread_is_told_once(
    webhook, mention, repository, temporal, value
):
    for _ in range(2):
        assert send(webhook, choose(mention, repository, value=value)).status_code == 200
    assert temporal.signals(mention.workflow_id) == []
    assert len(told(webhook)) == 1


def test_a_forged_picker_chooses_nothing_and_the_thread_is_told(
    webhook, mention, repository, temporal
):
    send(webhook, choose(mention, repository, block_id="forged"))
    assert temporal.signals(mention.workflow_id) == []
    assert len(told(webhook)) == 1


def test_a_value_of_another_mentions_picker_chooses_nothing(webhook, mention, repository, temporal):
    other = webhook.mention()
    value = picker.value(Choice(Mention.objects.get(ts=other["ts"]).pk, repository.pk))
    send(webhook, choose(mention, repository, value=value))
    assert temporal.signals(mention.workflow_id) == []
    assert len(told(webhook)) == 1


def test_a_repository_of_another_organization_is_not_chosen(webhook, mention, stranger, temporal):
    theirs = Repository.objects.create(
        project=stranger, full_name="theirs/shop", clone_url="https://x/y"
    )
    send(webhook, choose(mention, theirs))
    assert temporal.signals(mention.workflow_id) == []


def test_a_choice_from_another_workspace_is_ignored(
    webhook, mention, repository, stranger, temporal
):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    payload = choose(mention, repository)
    payload["team"]["id"] = "T2"
    assert send(webhook, payload).status_code == 200
    assert temporal.signals(mention.workflow_id) == []
    assert told(webhook) == []


@pytest.mark.case("S30")
def test_a_choice_after_the_workflow_ended_is_answered_as_too_late(webhook, mention, repository):
    Mention.objects.update(ts="100.9")
    for _ in range(2):
        assert send(webhook, choose(mention, repository)).status_code == 200
    [text] = told(webhook)
    assert "no longer open" in text


def test_slack_shows_that_a_choice_failed_without_temporal(
    webhook, mention, repository, no_temporal, temporal
):
    assert send(webhook, choose(mention, repository)).status_code == 503


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"type": "block_actions"},
        {"type": "block_actions", "actions": [None, {"action_id": picker.ACTION_ID}]},
        {"type": "block_actions", "actions": {"action_id": picker.ACTION_ID}},
        {"type": "block_suggestion", "action_id": picker.ACTION_ID, "block_id": ["x"]},
        {"type": "view_submission", "view": {"id": "V1"}},
        {"type": "block_actions", "actions": [{"action_id": "another"}]},
    ],
)
def test_any_other_interaction_is_acknowledged(webhook, workspace, payload):
    assert send(webhook, payload).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"payload=", b"payload={", b"{}", b"payload=%00", b"&" * 999]
)
def test_a_body_without_an_interaction_is_acknowledged(webhook, workspace, body):
    assert webhook.deliver(body, PATH).status_code == 200
