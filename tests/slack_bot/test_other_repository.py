"""A click below an answer, and a choice, start the request anew on another repository, once."""

from functools import partial
from typing import Any

import pytest
from django.core import signing
from django.utils import timezone

from coding_tasks.models import CodingTask, Repository, TaskRun
from projects.models import SlackWorkspace
from tests.slack_bot.conftest import captured
from tests.workflows.threads import at_once
from workflows import notices, tasks
from workflows.mention_types import NO_REPOSITORY
from workflows.messages import other_repository
from workflows.models import FollowUp, Mention, Notice
from workflows.slack import picker
from workflows.slack.picker import Choice

PATH = "/slack/interactivity/"


@pytest.fixture
def billing(project) -> Repository:
    return Repository.objects.create(
        project=project, full_name="acme/billing", clone_url="https://git.example.com/b.git"
    )


@pytest.fixture
def run(task: CodingTask, billing) -> TaskRun:
    """U1's answered run on acme/shop, with its answer in the thread."""
    run = TaskRun.objects.create(
        task=task,
        message_ts=task.thread_ts,
        request="x",
        state="succeeded",
        answer="Done.",
        started_at=timezone.now(),
        finished_at=timezone.now(),
    )
    mention = Mention.objects.get()
    Mention.objects.update(state="answered")
    notices.deliver(notices.claim_answer(run, mention))
    return run


def payload_of(action: dict[str, Any], user: str, team: str, message_ts: str = "") -> dict:
    payload: dict[str, Any] = captured("repository_chosen")
    payload["actions"] = [action | {"action_ts": f"{timezone.now().timestamp():.6f}"}]
    payload["user"] |= {"id": user, "team_id": team}
    payload["team"] = {"id": team, "domain": "x"}
    payload["container"]["message_ts"] = message_ts
    return {"payload": payload}


def click(webhook, run, *, user="U1", team="T1", value=None) -> None:
    value = other_repository.value_for(run) if value is None else value
    button = {"type": "button", "action_id": other_repository.ACTION_ID, "value": value}
    assert webhook.deliver(payload_of(button, user, team), PATH).status_code == 200
    tasks.deliver_pending_notices()


def choice(mention, repository_id, value=None) -> dict[str, Any]:
    value = value or picker.value(Choice(mention.pk, repository_id))
    return {
        "type": "external_select",
        "action_id": picker.START_ANEW_ACTION_ID,
        "block_id": picker.block_id(mention.pk),
        "selected_option": {"value": value},
    }


def choose(webhook, mention, repository_id, *, user="U1", value=None) -> None:
    asked = Notice.objects.filter(kind=Notice.Kind.PICKER).first()
    payload = payload_of(
        choice(mention, repository_id, value), user, "T1", asked.message_ts if asked else ""
    )
    assert webhook.deliver(payload, PATH).status_code == 200
    tasks.deliver_pending_notices()


def request_of(run: TaskRun) -> Mention:
    return Mention.objects.get(ts=run.message_ts)


def begun() -> list[Mention]:
    return list(Mention.objects.exclude(takes_up=None))


def shown_to(webhook, user: str) -> list[str]:
    shown = webhook.slack.ephemeral_messages("C1")
    return [each["text"] for each in shown if each["visible_to"] == user]


def buttons_of(notice: Notice) -> list[str]:
    return [
        each["action_id"]
        for block in notice.blocks
        for each in block.get("elements", [])
        if "action_id" in each
    ]


def test_the_first_answer_of_a_task_offers_another_repository(run):
    answer = Notice.objects.get(kind=Notice.Kind.ANSWER)
    assert buttons_of(answer) == [other_repository.ACTION_ID]


def test_later_answers_and_projects_with_one_repository_offer_none(run, billing):
    later = TaskRun.objects.create(
        task=run.task, message_ts="9.9", request="y", state="succeeded", answer="Yes."
    )
    assert other_repository.offer(later) == []
    billing.delete()
    assert other_repository.offer(run) == []


def test_a_click_and_a_choice_start_the_same_request_on_the_other_repository(
    webhook, run, billing, temporal
):
    click(webhook, run)
    [asked] = Notice.objects.filter(kind=Notice.Kind.PICKER)
    assert asked.text.startswith("<@U1>, on which repository should I start this request anew?")

    choose(webhook, request_of(run), billing.pk)

    [mention] = begun()
    assert (mention.user_id, mention.ts) == ("U1", asked.message_ts)
    assert (mention.chosen_repository, mention.state) == (billing.pk, "started")
    assert temporal.has(mention.workflow_id)
    run.task.refresh_from_db()
    assert run.task.state == CodingTask.State.DONE
    asked.refresh_from_db()
    assert asked.text == "Started this request anew on *acme/billing*, as <@U1> asked."
    assert buttons_of(Notice.objects.get(kind=Notice.Kind.ANSWER)) == []


def test_no_repository_can_be_chosen(webhook, run):
    click(webhook, run)
    choose(webhook, request_of(run), NO_REPOSITORY)
    assert begun()[0].chosen_repository == NO_REPOSITORY


def test_repeated_clicks_and_choices_start_it_once(webhook, run, billing):
    for _ in range(2):
        click(webhook, run)
    assert Notice.objects.filter(kind=Notice.Kind.PICKER).count() == 1
    for _ in range(3):
        choose(webhook, request_of(run), billing.pk)
    click(webhook, run)
    assert len(begun()) == 1
    assert set(shown_to(webhook, "U1")) == {
        "<@U1>, this request was started anew already, or it is too old for that."
    }


@pytest.mark.django_db(transaction=True)
def test_two_choices_at_once_start_it_once(webhook, run, billing):
    click(webhook, run)
    request = request_of(run)
    at_once(*[partial(choose, webhook, request, billing.pk) for _ in range(4)])
    assert len(begun()) == 1


@pytest.mark.parametrize("user", ["U2", "U3"])
def test_a_strangers_click_and_choice_start_nothing(webhook, run, billing, user):
    for _ in range(2):
        click(webhook, run, user=user)
    assert not Notice.objects.filter(kind=Notice.Kind.PICKER).exists()
    assert shown_to(webhook, user) == [f"<@{user}>, only <@U1> can choose the repository here."]
    click(webhook, run)
    choose(webhook, request_of(run), billing.pk, user=user)
    assert begun() == []


def test_a_stranger_who_searches_in_the_picker_sees_nothing(webhook, run):
    click(webhook, run)
    payload = captured("repository_searched")
    payload |= {
        "action_id": picker.START_ANEW_ACTION_ID,
        "block_id": picker.block_id(request_of(run).pk),
        "value": "",
    }
    payload["user"]["id"] = "U1"
    mine = webhook.deliver({"payload": payload}, PATH).json()["options"]
    payload["user"]["id"] = "U2"
    theirs = webhook.deliver({"payload": payload}, PATH).json()["options"]
    assert (len(mine), theirs) == (3, [])


def test_a_repository_of_another_organization_cannot_be_chosen(webhook, run, stranger):
    theirs = Repository.objects.create(
        project=stranger, full_name="theirs/secret", clone_url="https://x/y"
    )
    click(webhook, run)
    choose(webhook, request_of(run), theirs.pk)
    assert begun() == []


def test_a_click_from_another_workspace_and_forged_values_do_nothing(webhook, run, stranger):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    click(webhook, run, team="T2")
    for value in (run.pk.hex, signing.Signer(salt="tollgate.stop").sign(run.pk.hex), "", "\0"):
        click(webhook, run, value=value)
    choose(webhook, request_of(run), 1, value="forged")
    assert not Notice.objects.filter(kind=Notice.Kind.PICKER).exists()
    assert begun() == []


def test_nothing_starts_while_the_thread_has_work(webhook, run, billing):
    click(webhook, run)
    webhook.reply("and this", run.task.thread_ts)
    assert FollowUp.objects.count() == 1
    choose(webhook, request_of(run), billing.pk)
    assert begun() == []
    assert shown_to(webhook, "U1") == [
        "<@U1>, I am still at work in this thread. Wait for my answer or stop me, and choose again."
    ]
    FollowUp.objects.update(state="handled")
    choose(webhook, request_of(run), billing.pk)
    assert len(begun()) == 1


def test_without_credits_the_new_request_is_denied_and_nothing_starts(
    webhook, run, billing, out_of_credits, temporal
):
    click(webhook, run)
    choose(webhook, request_of(run), billing.pk)
    [mention] = begun()
    assert mention.state == Mention.State.REFUSED
    assert Notice.objects.filter(kind=Notice.Kind.DENIAL).count() == 1


def test_an_erased_request_does_not_start_anew(webhook, run, billing):
    click(webhook, run)
    Mention.objects.update(text="[erased]")
    choose(webhook, request_of(run), billing.pk)
    assert begun() == []
