"""Who is told when credits run low, and when there are some again."""

from datetime import timedelta

import pytest
from django.utils import timezone

from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.organizations import create_organization, create_project
from projects.models import SlackWorkspace
from quota.resources import AI_CREDITS, MICRO
from tests.billing.world import book, usage_event
from tests.fakes import FakeSlack
from workflows import credit_notices, notices, tasks
from workflows.models import Notice


@pytest.fixture
def slack(_slack: FakeSlack, settings) -> FakeSlack:
    _slack.reset()
    settings.SLACK_API_URL = _slack.api_url
    return _slack


@pytest.fixture
def workspace(db, slack) -> SlackWorkspace:
    project = create_project(create_organization("Acme"), "Main")
    set_limit(project.organization, AI_CREDITS, 15 * MICRO)
    return SlackWorkspace.objects.create(
        project=project,
        team_id="T1",
        bot_user_id="UBOT",
        bot_token="xoxb-demo",
        credits_channel_id="C1",
    )


def said(slack):
    return [message["text"].split(". ")[0] for message in slack.bot_messages("C1")]


def test_each_threshold_and_the_return_of_credits_are_told_once(workspace, slack):
    project = workspace.project
    book(usage_event(project))
    for _ in range(2):
        tasks.announce_credits()
    assert said(slack) == ["Your team has used 80 % of its Tollgate AI credits for this period"]

    book(usage_event(project))
    tasks.announce_credits()
    grant_credits(project.organization, AI_CREDITS, 100 * MICRO)
    for _ in range(2):
        tasks.announce_credits()

    assert said(slack)[1:] == [
        "Your team has used all of its Tollgate AI credits for this period",
        "Your team has Tollgate AI credits again.",
    ]
    assert all("thread_ts" not in message for message in slack.bot_messages("C1"))


@pytest.mark.case("U8")
def test_one_event_that_crosses_both_thresholds_says_only_that_all_is_used(workspace, slack):
    book(usage_event(workspace.project, "0.20"))
    for _ in range(2):
        tasks.announce_credits()
    assert said(slack) == ["Your team has used all of its Tollgate AI credits for this period"]


def test_a_threshold_crossed_again_after_a_top_up_is_told_again(workspace, slack):
    project = workspace.project
    book(usage_event(project))
    tasks.announce_credits()
    grant_credits(project.organization, AI_CREDITS, 15 * MICRO)
    tasks.announce_credits()
    book(usage_event(project))
    for _ in range(2):
        tasks.announce_credits()
    assert said(slack) == ["Your team has used 80 % of its Tollgate AI credits for this period"] * 2


def test_a_threshold_is_told_once_despite_concurrent_claims_and_a_dead_sender(workspace, slack):
    book(usage_event(workspace.project))
    now = timezone.now()
    [first], second = credit_notices.claim_new(now), credit_notices.claim_new(now)
    assert second == []
    assert said(slack) == []  # whoever claimed it died; the sweep sends it
    for _ in range(2):
        tasks.deliver_pending_notices()
        notices.deliver(first)
    assert len(said(slack)) == 1


def test_a_channel_set_late_is_told_only_what_is_still_true(workspace, slack):
    SlackWorkspace.objects.update(credits_channel_id="")
    for _ in range(2):
        book(usage_event(workspace.project))
        tasks.announce_credits()
    SlackWorkspace.objects.update(credits_channel_id="C1")
    for _ in range(2):
        tasks.announce_credits()
    assert said(slack) == ["Your team has used all of its Tollgate AI credits for this period"]


@pytest.mark.parametrize("generations", [1, 2], ids=["warned", "exhausted"])
def test_a_channel_set_after_a_top_up_is_told_nothing(workspace, slack, generations):
    SlackWorkspace.objects.update(credits_channel_id="")
    for _ in range(generations):
        book(usage_event(workspace.project))
    grant_credits(workspace.project.organization, AI_CREDITS, 100 * MICRO)
    SlackWorkspace.objects.update(credits_channel_id="C1")
    tasks.announce_credits()
    assert slack.calls() == []


def test_a_warning_is_not_sent_once_the_limit_is_gone(workspace, slack):
    book(usage_event(workspace.project))
    set_limit(workspace.project.organization, AI_CREDITS, None)
    tasks.announce_credits()
    assert slack.calls() == []


def test_a_warning_says_when_they_reset_and_where_to_top_up(workspace, slack, settings):
    book(usage_event(workspace.project))
    tasks.announce_credits()
    [message] = slack.bot_messages("C1")
    assert "They reset on " in message["text"]
    assert message["text"].endswith(f"Top up at {settings.BILLING_URL}.")


def test_workspaces_without_a_channel_and_strangers_are_told_nothing(workspace, slack):
    other = create_project(create_organization("Other"), "Main")
    book(usage_event(other))
    SlackWorkspace.objects.update(credits_channel_id="")
    book(usage_event(workspace.project))
    tasks.announce_credits()
    assert slack.calls() == []


def test_credit_news_that_slack_could_not_take_is_sent_later_once(workspace, slack):
    book(usage_event(workspace.project))
    slack.fail_next("chat.postMessage", "ratelimited", status=429, retry_after=0)
    tasks.announce_credits()
    assert said(slack) == []
    Notice.objects.update(next_attempt_at=timezone.now())
    tasks.deliver_pending_notices()
    tasks.deliver_pending_notices()
    assert len(said(slack)) == 1


def test_after_an_unknown_outcome_the_channel_is_searched_before_posting_again(workspace, slack):
    book(usage_event(workspace.project))
    tasks.announce_credits()
    Notice.objects.update(state=Notice.State.SENDING, next_attempt_at=timezone.now())
    tasks.deliver_pending_notices()
    assert len(said(slack)) == 1
    assert Notice.objects.get().state == Notice.State.SENT


def test_a_channel_that_slack_refuses_is_given_up(workspace, slack):
    SlackWorkspace.objects.update(credits_channel_id="C404")
    book(usage_event(workspace.project))
    tasks.announce_credits()
    assert Notice.objects.get().state == Notice.State.GIVEN_UP


def test_old_news_is_not_posted(workspace, slack):
    book(usage_event(workspace.project))
    later = timezone.now() + credit_notices.LOOKS_BACK + timedelta(seconds=1)
    assert credit_notices.claim_new(later) == []
