"""Asking for credits after a denial: the offer, the request, the decision, and the work."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.utils import timezone

from billing.allowances.caps import set_cap
from billing.allowances.grants import grant_credits, void_grant
from billing.allowances.limits import set_limit
from billing.models import AuditEntry, CreditGrant
from projects.models import SlackWorkspace, User
from quota.resources import AI_CREDITS, MICRO
from tests.slack_bot.conftest import FORM, at_once, workflow_of
from tests.slack_bot.test_changes import delete, edit
from workflows import denials, tasks
from workflows.credit_requests import asking, deciding, forms, resuming
from workflows.erasure import erase
from workflows.intake import mentions
from workflows.models import CreditApprover, CreditRequest, Mention, Notice, SlackPause

pytestmark = pytest.mark.usefixtures("temporal")
PATH = "/slack/interactivity/"


def staff_user(name: str, *permissions: str) -> User:
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


@pytest.fixture
def approver(workspace: SlackWorkspace) -> CreditApprover:
    """U2, who may top up in the admin. Requests go to C2."""
    workspace.credits_channel_id = "C2"
    workspace.save()
    user = staff_user("carl", "add_creditgrant")
    return CreditApprover.objects.create(workspace=workspace, slack_user_id="U2", user=user)


@pytest.fixture
def message(webhook, approver, out_of_credits) -> dict[str, Any]:
    """A mention of U1 that was refused."""
    message = webhook.mention(text="<@UBOT> add *tests*")
    tasks.deliver_pending_notices()
    return message


def cap_user(workspace: SlackWorkspace, micro: int) -> None:
    """Cap what U1 may use."""
    organization, subject = workspace.project.organization, workspace.distinct_id("U1")
    set_cap(organization, AI_CREDITS, "user", micro, subject=subject)


class Desk:
    """What people do with the bot's buttons and forms."""

    def __init__(self, webhook) -> None:
        self.webhook = webhook
        self.interactions = webhook.slack.slack.interactions

    def click(
        self, message: dict[str, Any], channel: str, user: str, action_id: str, **payload: Any
    ):
        """Click one of the message's buttons, send the due notices, and return the response."""
        clicked = self.payload(message, channel, user, action_id) | payload
        answer = self.webhook.deliver({"payload": clicked}, PATH)
        tasks.deliver_pending_notices()
        return answer

    def payload(
        self, message: dict[str, Any], channel: str, user: str, action_id: str
    ) -> dict[str, Any]:
        """Return what Slack sends for a click on one of the message's buttons."""
        [actions] = [block for block in message["blocks"] if block["type"] == "actions"]
        [button] = [each for each in actions["elements"] if each["action_id"] == action_id]
        action = {
            "type": "button",
            "block_id": "b",
            "action_id": action_id,
            "value": button["value"],
        }
        clicked: dict[str, Any] = self.interactions.block_actions(message, channel, user, action)
        return clicked

    def ask(self, user: str = "U1") -> None:
        """Click the offer, which only U1 was shown."""
        assert self.click(self.offers()[0], "C1", user, forms.ASK).status_code == 200

    def offers(self, user: str = "U1") -> list[dict[str, Any]]:
        return [each for each in self.shown(user, "C1") if each.get("blocks")]

    def decide(self, action_id: str, user: str = "U2"):
        [asked] = [each for each in self.webhook.slack.bot_messages("C2") if each.get("blocks")]
        return self.click(asked, "C2", user, action_id)

    def submit(self, user: str = "U2", **fields: Any) -> dict[str, str]:
        """Fill in the open form; return the errors that it shows."""
        view = self.interactions.modals.of(user)
        assert view is not None
        values = {
            name: {
                name: {"selected_option": {"value": value}} if name == "until" else {"value": value}
            }
            for name, value in fields.items()
        }
        payload = self.interactions.view_submission(user, view, values)
        answer = self.webhook.deliver({"payload": payload}, PATH)
        assert answer.status_code == 200
        tasks.deliver_pending_notices()
        return answer.json()["errors"] if answer.content else {}

    def shown(self, user: str, channel: str) -> list[dict[str, Any]]:
        """Return what only this person sees in the channel."""
        shown = self.webhook.slack.ephemeral_messages(channel)
        return [each for each in shown if each["visible_to"] == user]

    def last_shown(self, user: str, channel: str) -> str:
        return self.shown(user, channel)[-1]["text"]


@pytest.fixture
def desk(webhook) -> Desk:
    return Desk(webhook)


def has_started(message: dict[str, Any]) -> bool:
    tasks.wake_paused_runs()
    return Mention.objects.get(ts=message["ts"]).state == Mention.State.STARTED


# --- The offer -----------------------------------------------------------------------------------
def test_only_the_refused_author_is_offered_to_ask(webhook, desk, message):
    [offer] = webhook.slack.ephemeral_messages("C1")
    assert offer["visible_to"] == "U1"
    assert offer["thread_ts"] == message["ts"]
    assert len(webhook.slack.bot_messages("C1")) == 1, "the denial itself is said once"


def test_the_offer_waits_until_the_denial_is_in_the_thread(webhook, desk, approver, out_of_credits):
    webhook.mention()
    webhook.slack.fail_next("chat.postMessage", "ratelimited", retry_after=30)
    tasks.deliver_pending_notices()
    assert desk.offers() == []
    SlackPause.objects.update(until=timezone.now())
    for _ in range(2):  # the sweep may look at the offer first
        Notice.objects.exclude(state="sent").update(next_attempt_at=timezone.now())
        tasks.deliver_pending_notices()
    assert len(desk.offers()) == 1


def test_whoever_sends_the_denial_sends_the_offer_after_it(webhook, desk, approver, out_of_credits):
    webhook.mention()
    denial = Notice.objects.get(kind="denial")
    tasks.deliver_notice(str(denial.pk))
    assert len(desk.offers()) == 1
    assert [call.method for call in webhook.slack.calls()] == [
        "chat.postMessage",
        "chat.postEphemeral",
    ]


@pytest.mark.parametrize("missing", ["channel", "approvers", "active approvers"])
def test_nothing_is_offered_if_nobody_would_be_told_or_could_decide(
    webhook, workspace, approver, out_of_credits, missing
):
    if missing == "channel":
        SlackWorkspace.objects.update(credits_channel_id="")
    elif missing == "active approvers":
        User.objects.update(is_active=False)
    else:
        CreditApprover.objects.all().delete()
    webhook.mention()
    tasks.deliver_pending_notices()
    assert webhook.slack.ephemeral_messages("C1") == []


def test_nothing_is_offered_if_a_top_up_would_not_help(webhook, workspace, approver, project):
    set_limit(project.organization, AI_CREDITS, 100 * MICRO)
    cap_user(workspace, 0)
    webhook.mention()
    tasks.deliver_pending_notices()
    assert len(webhook.slack.bot_messages("C1")) == 1
    assert webhook.slack.ephemeral_messages("C1") == []


# --- The request ---------------------------------------------------------------------------------
def test_those_who_decide_see_who_asks_for_what_and_what_is_left(webhook, desk, message):
    desk.ask()
    [asked] = webhook.slack.bot_messages("C2")
    assert asked["text"] == (
        "<@U1> asks for credits for:\n&gt; add *tests*\n0.00 credits are left. "
        "There is no history yet of what tasks of this project cost."
    )
    assert desk.last_shown("U1", "C1").startswith("I have asked <#C2>.")


def test_a_request_is_quoted_so_that_it_pings_nobody(webhook, desk, approver, out_of_credits):
    webhook.mention(text="<@UBOT> tell <!channel> &amp; <@U3>\n*now*" + "x" * 2000)
    tasks.deliver_pending_notices()
    desk.ask()
    [asked] = webhook.slack.bot_messages("C2")
    assert "<!channel>" not in asked["text"]
    assert "<@U3>" not in asked["text"]
    assert "\n&gt; *now*xxx" in asked["text"]
    assert len(asked["text"]) < 1000


@pytest.mark.parametrize("text", ["&" * 5000, "a\n" * 5000, "<" * 399 + "\n" * 9])
def test_a_long_request_fits_into_slacks_section(webhook, desk, approver, out_of_credits, text):
    webhook.mention(text=f"<@UBOT> {text}")
    tasks.deliver_pending_notices()
    desk.ask()
    [asked] = webhook.slack.bot_messages("C2")
    assert len(asked["blocks"][0]["text"]["text"]) < 3000


def test_a_second_click_asks_no_second_time(webhook, desk, message):
    desk.ask()
    desk.ask()
    assert len(webhook.slack.bot_messages("C2")) == 1
    assert desk.last_shown("U1", "C1").startswith("I have asked already.")


def test_each_click_is_answered(webhook, desk, message):
    for _ in range(3):
        desk.ask()
    answers = [each["text"] for each in desk.shown("U1", "C1") if not each.get("blocks")]
    assert len(answers) == 3


def test_a_guest_who_may_not_use_the_bot_cannot_ask(webhook, desk, approver, out_of_credits):
    webhook.mention(user="U3")
    tasks.deliver_pending_notices()
    desk.click(desk.offers("U3")[0], "C1", "U3", forms.ASK)
    assert not CreditRequest.objects.exists()


def test_an_author_is_told_if_slack_refuses_the_request(webhook, desk, message):
    webhook.slack.fail_next("chat.postMessage", "channel_not_found")
    desk.ask()
    for _ in range(2):
        tasks.wake_paused_runs()
        tasks.deliver_pending_notices()
    said = [each["text"] for each in desk.shown("U1", "C1")]
    assert len([text for text in said if text.startswith("I could not ask:")]) == 1


def test_a_mention_that_was_repeated_cannot_be_asked_for(webhook, desk, message):
    webhook.mention(thread_ts=message["ts"])
    desk.ask()
    assert not CreditRequest.objects.exists()
    assert desk.last_shown("U1", "C1").startswith("There is nothing to ask for any more.")


def test_a_mention_that_was_stopped_cannot_be_asked_for(webhook, desk, message):
    webhook.reply("stop", message["ts"])
    desk.ask()
    assert not CreditRequest.objects.exists()


def test_nobody_asks_for_somebody_elses_mention(webhook, desk, message):
    desk.ask("U2")
    assert not CreditRequest.objects.exists()
    assert desk.last_shown("U2", "C1") == "Only the person who was refused can ask."


def test_a_forged_mention_asks_for_nothing(webhook, desk, message):
    [offer] = desk.shown("U1", "C1")
    mention = Mention.objects.get()
    for forged in (mention.pk.hex, f"{mention.pk.hex}:x", "", "\0"):
        offer["blocks"][-1]["elements"][0]["value"] = forged
        desk.click(offer, "C1", "U1", forms.ASK)
    assert not CreditRequest.objects.exists()


def test_a_person_has_at_most_three_open_requests(webhook, desk, approver, out_of_credits):
    for _ in range(4):
        webhook.mention()
        tasks.deliver_pending_notices()
        offer = [each for each in desk.shown("U1", "C1") if each.get("blocks")][-1]
        desk.click(offer, "C1", "U1", forms.ASK)
    assert CreditRequest.objects.count() == asking.MOST_OPEN
    assert desk.last_shown("U1", "C1").startswith("You already have several open requests.")


@pytest.mark.django_db(transaction=True)
def test_clicks_at_once_make_at_most_three_requests(webhook, desk, approver, out_of_credits):
    for _ in range(6):
        webhook.mention()
        tasks.deliver_pending_notices()
    clicks = [desk.payload(offer, "C1", "U1", forms.ASK) for offer in desk.offers()]
    assert len(clicks) == 6
    signed = [webhook.slack.signed(PATH, {"payload": each}, content_type=FORM) for each in clicks]
    assert set(at_once(signed)) == {200}
    assert CreditRequest.objects.count() == asking.MOST_OPEN


# --- Approval ------------------------------------------------------------------------------------
def test_an_approval_for_the_task_grants_credits_and_the_mention_runs(
    webhook, desk, message, temporal, project
):
    desk.ask()
    assert desk.decide(forms.APPROVE_FOR_TASK).status_code == 200
    grant = CreditGrant.objects.get()
    assert grant.amount_micro == 40 * MICRO
    assert timezone.now() + timedelta(days=6) < grant.expires_at
    entry = AuditEntry.objects.get(action=AuditEntry.Action.CREDITS_GRANTED)
    assert (entry.actor, entry.reason) == ("carl (Slack U2)", "asked for by U1 in Slack")
    assert has_started(message)
    assert temporal.has(workflow_of(message))
    tasks.deliver_pending_notices()
    assert desk.last_shown("U1", "C1") == "<@U2> approved it. I start now."
    assert webhook.slack.bot_messages("C2")[-1]["text"].startswith("<@U2> approved 40.00 credits")


def test_the_form_grants_the_amount_for_the_chosen_time(webhook, desk, message):
    desk.ask()
    desk.decide(forms.APPROVE)
    assert desk.submit(amount="12.5", until="for_ever", reason="release week") == {}
    grant = CreditGrant.objects.get()
    assert (grant.amount_micro, grant.expires_at) == (12_500_000, None)
    assert AuditEntry.objects.get(action="credits_granted").reason == "release week"
    assert has_started(message)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount": "lots"}, "amount"),
        ({"amount": "0"}, "amount"),
        ({"amount": "-5"}, "amount"),
        ({"amount": None}, "amount"),
        ({"amount": "9" * 30}, "amount"),
        ({"until": "yesterday"}, "until"),
        ({"reason": " "}, "reason"),
    ],
)
def test_the_form_says_what_is_wrong_and_grants_nothing(desk, message, fields, field):
    desk.ask()
    desk.decide(forms.APPROVE)
    errors = desk.submit(**{"amount": "5", "until": "day", "reason": "x", **fields})
    assert list(errors) == [field]
    assert not CreditGrant.objects.exists()


def test_an_amount_that_is_too_small_to_start_is_not_granted(desk, message, settings):
    settings.START_CREDITS = 2
    desk.ask()
    desk.decide(forms.APPROVE)
    assert desk.submit(amount="1.5", until="day", reason="x") == {
        "amount": "That is too little to start: at least 2 credits are needed."
    }
    assert not CreditGrant.objects.exists()
    assert CreditRequest.objects.get().state == "asked"


@pytest.mark.case("U5")
@pytest.mark.parametrize("again", ["same", "other", "form"])
def test_a_request_is_approved_once(desk, message, workspace, again):
    other = staff_user("olivia", "add_creditgrant")
    CreditApprover.objects.create(workspace=workspace, slack_user_id="U1", user=other)
    desk.ask()
    desk.decide(forms.APPROVE, "U1")
    desk.decide(forms.APPROVE_FOR_TASK)
    if again == "form":
        errors = desk.submit("U1", amount="50", until="day", reason="x")
        assert errors == {"amount": "This request was approved already."}
    else:
        user = {"same": "U2", "other": "U1"}[again]
        desk.decide(forms.APPROVE_FOR_TASK, user)
        assert desk.last_shown(user, "C2") == "This request was approved already."
    assert CreditGrant.objects.count() == 1
    assert has_started(message)
    desk.decide(forms.DECLINE)
    words = "This request has ended already: the work has started."
    assert desk.last_shown("U2", "C2") == words


@pytest.mark.case("U5")
@pytest.mark.django_db(transaction=True)
def test_clicks_of_two_people_at_once_are_one_grant_and_one_run(
    webhook, desk, message, workspace, temporal
):
    other = staff_user("olivia", "add_creditgrant")
    CreditApprover.objects.create(workspace=workspace, slack_user_id="U1", user=other)
    desk.ask()
    [asked] = webhook.slack.bot_messages("C2")
    clicks = [desk.payload(asked, "C2", user, forms.APPROVE_FOR_TASK) for user in ("U1", "U2")]
    signed = [webhook.slack.signed(PATH, {"payload": each}, content_type=FORM) for each in clicks]
    assert set(at_once(signed * 3)) == {200}
    assert CreditGrant.objects.count() == 1
    assert has_started(message)
    assert len(webhook.slack.bot_messages("C1", message["ts"])) == 1


@pytest.mark.case("U5")
def test_the_approval_of_a_deleted_mention_grants_nothing(webhook, desk, message, temporal):
    desk.ask()
    delete(webhook, message)
    [asked] = webhook.slack.bot_messages("C2")
    assert desk.click(asked, "C2", "U2", forms.APPROVE_FOR_TASK).status_code == 200
    assert not CreditGrant.objects.exists()
    assert not has_started(message)
    assert not temporal.has(workflow_of(message))
    assert webhook.slack.bot_messages("C2")[-1]["text"].startswith("No longer needed")


@pytest.mark.parametrize("lack", ["link", "permission", "staff", "active"])
@pytest.mark.parametrize("action_id", [forms.APPROVE_FOR_TASK, forms.APPROVE, forms.DECLINE])
def test_only_people_who_may_top_up_in_the_admin_decide(
    webhook, desk, message, approver, lack, action_id
):
    desk.ask()
    if lack == "link":
        approver.delete()
    elif lack == "permission":
        approver.user.user_permissions.clear()
    else:
        setattr(approver.user, f"is_{lack}", False)
        approver.user.save()
    desk.decide(action_id)
    assert desk.last_shown("U2", "C2").startswith("You cannot decide this:")
    assert CreditRequest.objects.get().state == "asked"
    assert not CreditGrant.objects.exists()
    assert webhook.slack.calls("views.open") == []


def test_a_right_that_was_taken_away_does_not_count_when_the_form_is_sent(desk, message, approver):
    desk.ask()
    desk.decide(forms.APPROVE)
    approver.user.user_permissions.clear()
    errors = desk.submit(amount="5", until="day", reason="x")
    assert errors["amount"].startswith("You cannot decide this:")
    assert not CreditGrant.objects.exists()


def test_an_approver_of_another_workspace_decides_nothing_here(
    webhook, desk, message, approver, stranger
):
    theirs = SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    webhook.slack.install("T2", "xoxb-theirs")
    webhook.slack.add_user("U7", team="T2")
    user = staff_user("zoe", "add_creditgrant")
    CreditApprover.objects.create(workspace=theirs, slack_user_id="U7", user=user)
    desk.ask()
    desk.decide(forms.APPROVE_FOR_TASK, "U7")
    assert not CreditGrant.objects.exists()
    assert CreditRequest.objects.get().state == "asked"


def test_a_request_is_decided_in_a_channel_that_another_customer_hosts(
    webhook, desk, message, stranger
):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    host = {"team": {"id": "T2"}}
    desk.click(desk.offers()[0], "C1", "U1", forms.ASK, **host)
    [asked] = webhook.slack.bot_messages("C2")
    desk.click(asked, "C2", "U2", forms.APPROVE_FOR_TASK, **host)
    assert CreditGrant.objects.count() == 1


def test_a_time_that_passes_while_the_form_is_open_is_refused(desk, message, workspace):
    desk.ask()
    decision = deciding.Decision(workspace, CreditRequest.objects.get().pk, "U2")
    with pytest.raises(deciding.Refused, match="must expire in the future"):
        deciding.approve(decision, MICRO, timezone.now() - timedelta(seconds=1), "x")
    assert not CreditGrant.objects.exists()


def test_a_form_that_slack_does_not_open_is_shown_as_failed(webhook, desk, message):
    desk.ask()
    webhook.slack.fail_next("views.open", "expired_trigger_id")
    assert desk.decide(forms.APPROVE).status_code == 503


# --- Refusal, and requests that end by themselves ------------------------------------------------
def test_a_declined_author_learns_why_and_nothing_runs(webhook, desk, message, project):
    desk.ask()
    desk.decide(forms.DECLINE)
    assert desk.submit(reason="use <the> other team's") == {}
    words = "<@U2> declined the request for credits: use &lt;the&gt; other team's"
    assert desk.last_shown("U1", "C1") == words
    set_limit(project.organization, AI_CREDITS, 100 * MICRO)
    assert not has_started(message)


@pytest.mark.case("U5")
def test_a_top_up_from_elsewhere_lets_the_mention_run_and_ends_the_request(
    webhook, desk, message, project
):
    desk.ask()
    grant_credits(project.organization, AI_CREDITS, 50 * MICRO)
    assert has_started(message)
    tasks.deliver_pending_notices()
    assert webhook.slack.bot_messages("C2")[-1]["text"].startswith("No longer needed")
    desk.decide(forms.APPROVE_FOR_TASK)
    assert CreditGrant.objects.count() == 1


def test_without_a_request_a_top_up_starts_nothing(message, project):
    grant_credits(project.organization, AI_CREDITS, 50 * MICRO)
    assert not has_started(message)


@pytest.mark.case("U5")
def test_a_request_lapses_and_its_late_approval_grants_nothing(desk, message, project):
    desk.ask()
    CreditRequest.objects.update(asked_at=timezone.now() - asking.LAPSES_AFTER)
    tasks.wake_paused_runs()
    tasks.deliver_pending_notices()
    assert desk.last_shown("U1", "C1").startswith("Your request for credits waited too long.")
    desk.decide(forms.APPROVE_FOR_TASK)
    assert not CreditGrant.objects.exists()
    set_limit(project.organization, AI_CREDITS, 100 * MICRO)
    assert not has_started(message)


def test_an_approved_mention_waits_while_its_author_has_used_their_share(
    desk, message, workspace, project
):
    desk.ask()
    cap_user(workspace, 0)
    desk.decide(forms.APPROVE_FOR_TASK)
    assert not has_started(message)
    cap_user(workspace, 9 * MICRO)
    assert has_started(message)


def test_a_mention_that_was_taken_up_meanwhile_does_not_run_twice(
    webhook, desk, message, project, temporal
):
    desk.ask()
    set_limit(project.organization, AI_CREDITS, 100 * MICRO)
    later = webhook.mention(thread_ts=message["ts"])
    assert Mention.objects.get(ts=later["ts"]).takes_up.ts == message["ts"]
    assert not has_started(message)
    assert CreditRequest.objects.get().state == "dropped"
    assert not temporal.has(workflow_of(message))
    tasks.deliver_pending_notices()
    assert webhook.slack.bot_messages("C2")[-1]["text"].startswith("No longer needed: its author")


def test_a_mention_that_is_repeated_while_it_waits_runs_once_as_repeated(
    webhook, desk, message, temporal
):
    desk.ask()
    later = webhook.mention(text="<@UBOT> and docs", thread_ts=message["ts"])
    tasks.deliver_pending_notices()
    assert len(desk.offers()) == 1, "there is a request already"
    assert "\n&gt; and docs" in webhook.slack.bot_messages("C2")[-1]["text"]
    desk.decide(forms.APPROVE_FOR_TASK)
    assert has_started(later)
    assert not temporal.has(workflow_of(message))
    assert denials.claimed_for(Mention.objects.get(ts=later["ts"])) is None


def test_those_who_decide_see_what_a_waiting_mention_was_edited_to(webhook, desk, message):
    desk.ask()
    for _ in range(2):
        edit(webhook, message, "<@UBOT> something <!channel> else")
    tasks.deliver_pending_notices()
    [_, changed] = webhook.slack.bot_messages("C2")
    assert changed["text"] == (
        "<@U1> has changed the request. It is now for:\n&gt; something &lt;!channel&gt; else"
    )


def test_a_request_that_ends_before_slack_takes_it_is_not_shown(webhook, desk, message):
    webhook.slack.fail_next("chat.postMessage", "ratelimited", retry_after=30)
    desk.ask()
    webhook.reply("stop", message["ts"])
    Notice.objects.update(next_attempt_at=timezone.now())
    tasks.deliver_pending_notices()
    assert webhook.slack.bot_messages("C2") == []


def test_an_order_to_stop_ends_the_request(webhook, desk, message, project):
    desk.ask()
    webhook.reply("stop", message["ts"])
    desk.decide(forms.APPROVE_FOR_TASK)
    assert not CreditGrant.objects.exists()
    assert CreditRequest.objects.get().state == "dropped"
    assert webhook.slack.bot_messages("C2")[-1]["text"].startswith("No longer needed")


def test_a_mention_that_was_erased_does_not_run_and_is_not_quoted(desk, message, project):
    desk.ask()
    erase("T1", "U1")
    desk.decide(forms.APPROVE_FOR_TASK)
    assert not CreditGrant.objects.exists()
    assert CreditRequest.objects.get().state == "dropped"
    kept = Notice.objects.filter(kind="credit_request").values_list("text", "blocks")
    assert not any("tests" in str(row) for row in kept)


def test_requests_that_must_wait_do_not_keep_others_waiting(
    webhook, desk, approver, out_of_credits, workspace, project, monkeypatch
):
    monkeypatch.setattr(tasks, "_BATCH", 1)
    for user in ("U1", "U2"):
        message = webhook.mention(user=user)
        CreditRequest.objects.create(
            mention=Mention.objects.get(ts=message["ts"]), suggested_micro=MICRO
        )
    set_limit(project.organization, AI_CREDITS, 100 * MICRO)
    cap_user(workspace, 0)
    assert any(has_started(message) for _ in range(50))


def test_a_mention_that_is_refused_again_is_told_so(webhook, desk, message, project):
    """The credits are used up between the approval's check and the mention's own gate."""
    desk.ask()
    desk.decide(forms.APPROVE_FOR_TASK)
    [request] = CreditRequest.objects.all()

    mention = resuming.resume_or_end(resuming.waiting().get(pk=request.pk))
    set_limit(project.organization, AI_CREDITS, 0)

    void_grant(CreditGrant.objects.get())

    mentions.admit(mention)
    tasks.deliver_pending_notices()
    assert len(webhook.slack.bot_messages("C1", message["ts"])) == 2
    assert len(Notice.objects.filter(kind="denial")) == 2
    assert len([e for e in desk.shown("U1", "C1") if e.get("blocks")]) == 1, "no second offer"
