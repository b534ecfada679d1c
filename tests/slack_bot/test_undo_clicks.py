"""Clicks on the button that undoes a change, as Slack delivers them."""

import zlib

import pytest
from django.core import signing
from django.utils import timezone

from billing.allowances.limits import set_limit
from coding_tasks.models import ChangeUndo, CodingTask, RunChange, TaskRun
from coding_tasks.publishing.branches import branch_of
from projects.models import SlackWorkspace
from quota.resources import AI_CREDITS
from tests.slack_bot.conftest import captured
from workflows import notices, tasks
from workflows.messages import run_buttons
from workflows.models import Mention, Notice
from workflows.results import confirmations, undoing

PATH = "/slack/interactivity/"
DISCARDED = "<@U1>: The change is discarded. It had not been pushed."


@pytest.fixture
def run(webhook, task: CodingTask) -> TaskRun:
    """An answered run of U1, whose change is kept here, and whose answer is in the thread."""
    branch_of(task)
    run = TaskRun.objects.create(
        task=task, message_ts=task.thread_ts, request="x", answer="Done", state="succeeded"
    )
    RunChange.objects.create(
        run=run, commit="a" * 40, branch="b", files=1, added=1, removed=0, note="Not pushed.",
        packed_patch=zlib.compress(b""), description=b"",
    )  # fmt: skip
    notices.claim_answer(run, Mention.objects.get())
    tasks.deliver_pending_notices()
    return run


def button() -> dict:
    """Return the button below the answer."""
    blocks = Notice.objects.get(kind="answer").blocks
    found = [each for block in blocks for each in block.get("elements", ())]
    return next((each for each in found if each.get("action_id") == run_buttons.UNDO), {})


def click(webhook, value: str, *, user: str = "U1", team: str = "T1") -> None:
    payload = captured("repository_chosen")
    payload["actions"] = [{"type": "button", "action_id": run_buttons.UNDO, "value": value}]
    payload["user"] |= {"id": user, "team_id": team}
    payload["team"] = {"id": team, "domain": "x"}
    assert webhook.deliver({"payload": payload}, PATH).status_code == 200
    Notice.objects.filter(state="pending").update(next_attempt_at=timezone.now())
    tasks.deliver_pending_notices()


def said(webhook, run: TaskRun) -> list[str]:
    return [each["text"] for each in webhook.slack.bot_messages("C1", run.task.thread_ts)][1:]


def shown_to(webhook, user: str) -> list[str]:
    shown = webhook.slack.ephemeral_messages("C1")
    return [each["text"] for each in shown if each["visible_to"] == user]


def test_the_answer_asks_before_it_undoes_the_change(webhook, run):
    assert button()["confirm"]["confirm"]["text"] == "Undo it"


def test_an_answer_without_a_change_has_no_button(webhook, run):
    RunChange.objects.all().delete()
    Notice.objects.filter(kind="answer").delete()
    notices.claim_answer(run, Mention.objects.get())
    assert button() == {}


def test_the_owners_click_discards_a_kept_change_and_says_so_once(webhook, run):
    value = button()["value"]
    for _ in range(3):
        click(webhook, value)
    undo = ChangeUndo.objects.get()
    assert (undo.state, undo.asked_by) == ("done", "U1")
    assert undo.told_at is not None
    assert said(webhook, run) == [DISCARDED]


def test_the_button_goes_once_the_change_is_undone(webhook, run):
    click(webhook, button()["value"])
    assert button() == {}
    [answer, _told] = webhook.slack.bot_messages("C1", run.task.thread_ts)
    assert "actions" not in [block["type"] for block in answer["blocks"]]


def test_a_pushed_change_is_left_to_celery(webhook, run):
    RunChange.objects.update(pushed_at=timezone.now(), note="")
    click(webhook, button()["value"])
    assert ChangeUndo.objects.get().state == "wanted"
    assert said(webhook, run) == []
    assert undoing.open_undos().count() == 1


def test_another_persons_click_undoes_nothing_and_is_answered_to_them_alone_once(webhook, run):
    for _ in range(2):
        click(webhook, button()["value"], user="U2")
    assert not ChangeUndo.objects.exists()
    assert said(webhook, run) == []
    assert shown_to(webhook, "U2") == ["<@U2>, only <@U1> can undo this change."]


def test_a_click_from_another_customers_workspace_undoes_nothing(webhook, run, stranger):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    click(webhook, button()["value"], team="T2")
    assert not ChangeUndo.objects.exists()


def test_a_forged_button_undoes_nothing(webhook, run):
    other = signing.Signer(salt="tollgate.publish").sign(run.pk.hex)
    for value in (run.pk.hex, other, "", "\0", ":"):
        click(webhook, value)
    assert not ChangeUndo.objects.exists()


def test_a_click_while_the_task_works_is_answered_to_the_person_alone(webhook, run):
    TaskRun.objects.create(task=run.task, message_ts="9.9", request="y", state="running")
    click(webhook, button()["value"])
    assert not ChangeUndo.objects.exists()
    assert shown_to(webhook, "U1") == [
        "<@U1>, I am at work on this. Wait or stop me, and then try again."
    ]


def test_a_click_needs_no_credits(webhook, run):
    set_limit(run.task.project.organization, AI_CREDITS, 0)
    click(webhook, button()["value"])
    assert ChangeUndo.objects.get().state == "done"


def test_a_change_that_was_undone_is_not_pushed_by_a_later_agreement(webhook, run):
    RunChange.objects.update(questions=["odd"], note="Not pushed yet: odd")
    question = confirmations.ask(run, ("odd",))
    value = question.blocks[-1]["elements"][0]["value"]
    click(webhook, button()["value"])
    confirmations.agree(run.task.workspace, "U1", value)
    assert not confirmations.to_publish().exists()
    assert RunChange.objects.get().agreed_at is None
    question.refresh_from_db()
    assert question.withdrawn


def test_a_process_that_died_before_it_told_the_thread_is_finished_by_the_sweep(webhook, run):
    click(webhook, button()["value"])
    ChangeUndo.objects.update(told_at=None)
    Notice.objects.filter(key=f"undone:{run.pk}").delete()
    for _ in range(2):
        tasks.undo_all()
    assert Notice.objects.filter(key=f"undone:{run.pk}").count() == 1


def test_a_repository_that_is_down_for_long_is_given_up_and_reported(webhook, run):
    RunChange.objects.update(pushed_at=timezone.now(), note="")
    repository = run.task.repository
    repository.clone_url = "file:///nowhere"
    repository.save()
    click(webhook, button()["value"])
    ChangeUndo.objects.update(asked_at=timezone.now() - undoing.GIVE_UP_AFTER * 2)
    tasks.undo_all()
    undo = ChangeUndo.objects.get()
    assert undo.state == "refused"
    assert undo.told_at is not None
    assert undo.outcome.startswith("I changed nothing: ")
