"""The webhook records each mention, decides about it, and starts or refuses it once."""

import time
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing.allowances.caps import set_cap
from billing.allowances.limits import set_limit
from projects.models import SlackWorkspace
from quota.resources import AI_CREDITS, MICRO
from tests.slack_bot.conftest import captured, workflow_of
from tests.stopwatch import Stopwatch
from workflows import tasks
from workflows.intake import mentions
from workflows.models import FollowUp, Mention, Notice

DENIAL = (
    "Your team has used its monthly Tollgate AI credits. "
    "Top up at https://billing.example.com/credits to continue."
)


def assert_no_effects(webhook) -> None:
    assert not Mention.objects.exists()
    assert not FollowUp.objects.exists()
    assert not Notice.objects.exists()
    assert webhook.slack.calls() == []


# --- Started or refused --------------------------------------------------------------------------
def test_a_mention_starts_one_workflow(webhook, workspace, temporal):
    message = webhook.mention()
    mention = Mention.objects.get()
    assert (mention.state, mention.ts, mention.thread_ts) == (
        "started",
        message["ts"],
        message["ts"],
    )
    assert mention.workflow_id == workflow_of(message)
    assert temporal.has(workflow_of(message))
    assert webhook.slack.calls() == []


@pytest.mark.case("S17")
def test_over_quota_at_top_level_gets_one_denial_below_the_mention_and_no_start(
    webhook, workspace, out_of_credits, temporal
):
    message = webhook.mention()
    tasks.deliver_pending_notices()
    [denial] = webhook.slack.bot_messages("C1")
    assert (denial["thread_ts"], denial["text"]) == (message["ts"], DENIAL)
    assert Mention.objects.get().state == "refused"
    assert Mention.objects.get().outcome == "out of credits: limit_reached"
    assert not temporal.has(workflow_of(message))


@pytest.mark.django_db(transaction=True)
def test_over_quota_at_top_level_is_recorded_and_refused_in_one_transaction(
    webhook, workspace, out_of_credits
):
    webhook.mention()  # also notes that something arrived from Slack
    with CaptureQueriesContext(connection) as queries:
        webhook.mention()
    statements = [query["sql"] for query in queries]
    assert [sql.split()[0] for sql in statements].count("COMMIT") == 1
    begun = next(i for i, sql in enumerate(statements) if sql.startswith("BEGIN"))
    writes = [i for i, sql in enumerate(statements) if sql.startswith(("INSERT", "UPDATE"))]
    assert begun < writes[0] < writes[-1] < statements.index("COMMIT")
    assert len(statements) <= 15


def test_over_quota_at_top_level_obeys_a_stop_that_arrived_first(
    webhook, workspace, out_of_credits
):
    message = webhook.slack.post()
    stop = webhook.slack.post("stop", thread_ts=message["ts"])
    webhook.deliver(webhook.slack.event(stop, "message"))
    webhook.deliver(webhook.slack.event(message))
    assert Mention.objects.get(ts=message["ts"]).state == "stopped"
    assert not Notice.objects.filter(kind="denial").exists()


@pytest.mark.case("S18")
def test_over_quota_in_a_thread_gets_its_denial_at_the_root_of_the_thread(
    webhook, workspace, out_of_credits
):
    root = webhook.slack.post("a remark", user="U2")
    webhook.mention(thread_ts=root["ts"])
    tasks.deliver_pending_notices()
    [denial] = webhook.slack.bot_messages("C1")
    assert denial["thread_ts"] == root["ts"]


def test_too_few_credits_to_start_are_refused_in_words_of_their_own(webhook, workspace, temporal):
    set_limit(workspace.project.organization, AI_CREDITS, MICRO // 2)
    webhook.mention()
    assert Mention.objects.get().outcome == "out of credits: insufficient_remaining"
    assert Notice.objects.get().text.startswith("Your team has too few Tollgate AI credits left")


def test_a_user_over_their_cap_is_refused_and_their_colleague_is_not(webhook, workspace, temporal):
    organization = workspace.project.organization
    set_cap(organization, AI_CREDITS, "user", 0, subject=workspace.distinct_id("U1"))
    webhook.mention()
    assert Mention.objects.get().outcome == "out of credits: user_cap_reached"
    assert Notice.objects.get().text.startswith("You have used your share of your team's Tollgate")
    webhook.mention(user="U2")
    assert Mention.objects.filter(state="started").count() == 1


@pytest.mark.case("U9")
def test_the_same_id_in_two_workspaces_of_a_project_is_two_people(
    webhook, workspace, task, temporal
):
    organization = workspace.project.organization
    sister = SlackWorkspace.objects.create(
        project=workspace.project, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-sister"
    )
    set_cap(organization, AI_CREDITS, "user", 0, subject=workspace.distinct_id("U1"))
    for case, fields in (("reply_in_a_thread", {"thread_ts": task.thread_ts}), ("mention", {})):
        payload = captured(case, team="T2", **fields)
        payload |= {"team_id": "T2"}
        payload["authorizations"][0]["team_id"] = "T2"
        assert webhook.deliver(payload).status_code == 200
    assert not FollowUp.objects.exists()
    assert Mention.objects.get(workspace=sister).state == "started"
    webhook.mention()
    assert Mention.objects.latest("received_at").outcome == "out of credits: user_cap_reached"


@pytest.mark.case("Q8")
def test_a_block_set_by_hand_refuses_the_next_mention_and_its_removal_lets_the_one_after_in(
    webhook, workspace, temporal, redis_client
):
    key, member = f"@posthog/quota-limits/{AI_CREDITS}", workspace.project.api_token
    redis_client.zadd(key, {member: int(time.time()) + 3600})
    webhook.mention()
    redis_client.zrem(key, member)
    webhook.mention()
    states = Mention.objects.order_by("received_at").values_list("state", flat=True)
    assert list(states) == ["refused", "started"]


def test_another_organizations_limit_does_not_matter(webhook, workspace, stranger, temporal):
    set_limit(stranger.organization, AI_CREDITS, 0)
    webhook.mention()
    assert Mention.objects.get().state == "started"


def test_a_mention_in_another_organizations_workspace_is_theirs(
    webhook, workspace, stranger, out_of_credits, temporal
):
    webhook.slack.install("T2", "xoxb-theirs")
    webhook.slack.add_user("U5", team="T2")
    webhook.slack.add_channel("C5", team="T2")
    theirs = SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    message = webhook.slack.post(user="U5", channel="C5", team="T2")
    webhook.deliver(webhook.slack.event(message, channel="C5", team="T2"))
    mention = Mention.objects.get()
    assert (mention.workspace, mention.state) == (theirs, "started")
    assert mention.workflow_id == workflow_of(message, channel="C5", team="T2")


# --- Redeliveries --------------------------------------------------------------------------------
@pytest.mark.case("S12")
def test_a_redelivery_of_a_mention_changes_nothing(webhook, workspace, temporal):
    message = webhook.mention()
    payload = webhook.slack.event(message)
    before = Mention.objects.values().get()
    for attempt in (1, 2, 3):
        response = webhook.deliver(
            payload, HTTP_X_SLACK_RETRY_NUM=attempt, HTTP_X_SLACK_RETRY_REASON="http_timeout"
        )
        assert response.status_code == 200
    assert Mention.objects.values().get() == before


@pytest.mark.case("S13")
def test_a_mention_that_first_arrives_as_the_second_retry_is_handled(webhook, workspace, temporal):
    message = webhook.slack.post()
    webhook.deliver(webhook.slack.event(message), HTTP_X_SLACK_RETRY_NUM=2)
    assert Mention.objects.get().state == "started"


@pytest.mark.case("S14")
@pytest.mark.parametrize("order", [("app_mention", "message"), ("message", "app_mention")])
def test_the_two_events_of_one_post_are_one_mention(webhook, workspace, temporal, order):
    message = webhook.slack.post()
    for kind in order:
        assert webhook.deliver(webhook.slack.event(message, kind)).status_code == 200
    assert Mention.objects.get().state == "started"
    assert temporal.has(workflow_of(message))


@pytest.mark.case("S19")
def test_redeliveries_of_a_refused_mention_get_one_denial(webhook, workspace, out_of_credits):
    message = webhook.mention()
    for kind in ("app_mention", "message", "app_mention"):
        webhook.deliver(webhook.slack.event(message, kind))
        tasks.deliver_pending_notices()
    assert len(webhook.slack.bot_messages("C1")) == 1


def test_a_refused_mention_stays_refused_when_it_is_delivered_again_after_a_top_up(
    webhook, workspace, out_of_credits, temporal
):
    message = webhook.mention()
    set_limit(workspace.project.organization, AI_CREDITS, None)
    webhook.deliver(webhook.slack.event(message))
    assert Mention.objects.get().state == "refused"
    assert not temporal.has(workflow_of(message))


@pytest.fixture
def recorded(webhook, workspace) -> Mention:
    """A mention whose request died after recording it and before deciding about it."""
    message = webhook.slack.post()
    return Mention.objects.create(
        workspace=workspace,
        team_id="T1",
        channel_id="C1",
        ts=message["ts"],
        thread_ts=message["ts"],
        user_id="U1",
        text=message["text"],
    )


def deliver_again(webhook, mention: Mention) -> None:
    [message] = webhook.slack.messages("C1", mention.ts)
    assert webhook.deliver(webhook.slack.event(message)).status_code == 200
    mention.refresh_from_db()


def lease(mention: Mention, seconds: int) -> None:
    Mention.objects.update(lease_until=timezone.now() + timedelta(seconds=seconds))


def test_a_mention_whose_request_died_is_resumed_by_its_redelivery(webhook, recorded, temporal):
    deliver_again(webhook, recorded)
    assert recorded.state == "started"
    assert temporal.has(recorded.workflow_id)


def test_a_mention_whose_request_died_is_resumed_by_the_sweep(recorded, temporal):
    tasks.start_pending_mentions()
    recorded.refresh_from_db()
    assert recorded.state == "started"
    assert temporal.has(recorded.workflow_id)


def test_a_mention_with_a_lease_is_left_alone(webhook, recorded):
    lease(recorded, seconds=10)
    tasks.start_pending_mentions()
    deliver_again(webhook, recorded)
    assert recorded.state == "received"


def test_a_resumed_decision_is_not_contradicted_by_a_denial(
    webhook, recorded, out_of_credits, temporal
):
    lease(recorded, seconds=-1)  # its holder may have started the workflow
    deliver_again(webhook, recorded)
    assert recorded.state == "started"
    assert not Notice.objects.exists()


# --- Other events --------------------------------------------------------------------------------
@pytest.mark.case("S8")
@pytest.mark.parametrize(
    "body",
    [
        b"{bad",
        b"[]",
        b"null",
        b"",
        b'{"type":"event_callback"}',
        b'{"type":"event_callback","event":null}',
        b'{"a":' * 50_000,
        b'{"type":"url_verification","challenge":{}}',
    ],
)
def test_signed_junk_is_acknowledged_and_has_no_effects(webhook, workspace, body):
    assert webhook.deliver(body).status_code == 200
    assert_no_effects(webhook)


@pytest.mark.case("S9", "S23")
@pytest.mark.parametrize(
    "case",
    [
        "app_rate_limited",
        "reaction_added",
        "member_joined_channel",
        "channel_joined",
        "message_edited",
        "message_deleted",
        "mention_fired_by_an_edit",
        "reply_in_a_thread",
        "file_shared_in_a_thread",
        "thread_reply_also_sent_to_the_channel",
    ],
)
def test_events_not_for_the_bot_have_no_effects(webhook, workspace, case):
    assert webhook.deliver(captured(case)).status_code == 200
    assert_no_effects(webhook)


@pytest.mark.case("S22")
@pytest.mark.parametrize(
    "case",
    [
        "message_by_an_app",
        "mention_by_an_app",
        "message_by_an_incoming_webhook",
        "message_by_slackbot",
        "message_by_ourselves",
    ],
)
def test_a_hundred_posts_of_bots_have_no_effects(webhook, workspace, case):
    for number in range(100):
        assert webhook.deliver(captured(case, ts=f"100.{number}")).status_code == 200
    assert_no_effects(webhook)


def test_the_bots_own_post_is_recognized_without_the_envelope(webhook, workspace):
    payload = captured("message_by_ourselves")
    del payload["authorizations"]
    webhook.deliver(payload)
    assert_no_effects(webhook)


@pytest.mark.case("S23")
def test_an_edited_mention_starts_nothing_again(webhook, workspace, temporal):
    message = webhook.mention()
    before = Mention.objects.values().get()
    for case in ("mention_fired_by_an_edit", "message_edited"):
        webhook.deliver(captured(case, ts=message["ts"]))
    assert Mention.objects.values().get() == before


@pytest.mark.case("S10")
def test_an_unknown_workspace_is_acknowledged_and_has_no_effects(webhook, db):
    assert webhook.deliver(captured("mention")).status_code == 200
    assert_no_effects(webhook)


def test_a_workspace_that_uninstalled_the_app_has_no_effects(webhook, workspace):
    SlackWorkspace.objects.update(is_active=False)
    assert webhook.deliver(captured("mention")).status_code == 200
    assert_no_effects(webhook)


@pytest.mark.case("S27")
def test_a_mention_of_an_external_author_is_refused_once_and_starts_nothing(
    webhook, workspace, temporal
):
    for _ in range(2):
        webhook.deliver(captured("mention_by_an_external_author"))
    assert Mention.objects.get().state == "refused"
    notice = Notice.objects.get()
    assert (notice.kind, notice.thread_ts) == ("no_access", "100.1")
    assert "full members" in notice.text
    assert not Mention.objects.exclude(workflow_id="").exists()


SHAPES_OF_COLLEAGUES = {
    "in a channel that they host": {"user_team": "T1", "source_team": "T9", "team": "T1"},
    "hosted by us": {"user_team": "T1", "source_team": "T1", "team": "T1"},
    "the host under both other names": {"user_team": "T1", "source_team": "T9", "team": "T9"},
    "only the host is named": {"user_team": None, "source_team": "T9", "team": "T9"},
    "only `team`": {"user_team": None, "source_team": None, "team": "T1"},
    "no team at all": {"user_team": None, "source_team": None, "team": None},
    "the profile alone": {"user_team": None, "team": "T9", "user_profile": {"team": "T1"}},
    "teams of another type": {"user_team": ["T9"], "source_team": {}, "team": 9},
}


@pytest.mark.case("U11")
@pytest.mark.parametrize("shape", SHAPES_OF_COLLEAGUES)
@pytest.mark.parametrize("case", ["mention_in_a_shared_channel", "message_twin_of_the_mention"])
def test_the_author_is_judged_by_their_own_team_not_by_the_channels_host(
    webhook, workspace, temporal, ts, case, shape
):
    webhook.deliver(captured(case, ts=ts, **SHAPES_OF_COLLEAGUES[shape]))
    assert Mention.objects.get().state == "started"


@pytest.mark.case("S27")
@pytest.mark.parametrize(
    "shape",
    [
        {"user_team": "T9", "source_team": "T1", "team": "T1"},
        {"user_team": "T9", "source_team": None, "team": None},
        {"user_team": None, "team": "T1", "user_profile": {"team": "T9"}},
        {"user_team": "E9", "team": "T1"},
    ],
)
def test_an_external_author_stays_refused_whoever_hosts_the_channel(
    webhook, workspace, temporal, ts, shape
):
    webhook.deliver(captured("mention_in_a_shared_channel", ts=ts, user="U9", **shape))
    assert Mention.objects.get().outcome == "the author is of another organization"


def test_in_an_enterprise_the_profile_decides_about_sister_workspaces(
    webhook, workspace, temporal, ts
):
    SlackWorkspace.objects.update(enterprise_id="E1")
    webhook.deliver(captured("mention_in_a_shared_channel", ts=ts, user_team="T2", team="T2"))
    assert Mention.objects.get().state == "started"


def test_a_colleague_in_a_shared_channel_is_admitted(webhook, workspace, temporal, ts):
    webhook.deliver(captured("mention_in_a_shared_channel", ts=ts))
    assert Mention.objects.get().state == "started"


@pytest.mark.case("S28")
def test_an_org_wide_installation_serves_its_workspaces(webhook, project, temporal, ts):
    org_wide = SlackWorkspace.objects.create(
        project=project, enterprise_id="E1", bot_user_id="UBOT", bot_token="xoxb-demo"
    )
    webhook.deliver(captured("mention_under_an_org_wide_installation", ts=ts))
    mention = Mention.objects.get()
    assert (mention.workspace, mention.team_id, mention.state) == (org_wide, "E1", "started")


@pytest.mark.case("S28")
def test_another_enterprises_installation_does_not(webhook, stranger):
    SlackWorkspace.objects.create(
        project=stranger, enterprise_id="E2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    webhook.deliver(captured("mention_under_an_org_wide_installation"))
    assert_no_effects(webhook)


# --- When something is down ----------------------------------------------------------------------
@pytest.mark.case("S16")
def test_without_temporal_a_mention_is_kept_and_started_later_once(
    webhook, workspace, no_temporal, temporal_address, settings, monkeypatch, request
):
    with Stopwatch() as waited:
        message = webhook.mention()
    assert waited.seconds < 3
    assert Mention.objects.get().state == "received"
    tasks.start_pending_mentions()
    assert Mention.objects.get().state == "received"
    settings.TEMPORAL_ADDRESS = temporal_address
    monkeypatch.undo()
    temporal = request.getfixturevalue("temporal")
    for _ in range(2):
        tasks.start_pending_mentions()
    assert Mention.objects.get().state == "started"
    assert temporal.has(workflow_of(message))


@pytest.mark.case("S16")
def test_a_mention_kept_without_temporal_is_started_by_its_redelivery(
    webhook, workspace, no_temporal, temporal_address, settings, monkeypatch, request
):
    message = webhook.mention()
    settings.TEMPORAL_ADDRESS = temporal_address
    monkeypatch.undo()
    request.getfixturevalue("temporal")
    webhook.deliver(webhook.slack.event(message))
    assert Mention.objects.get().state == "started"


def test_a_mention_still_waiting_when_the_app_is_uninstalled_is_ended(
    webhook, workspace, no_temporal
):
    webhook.mention()
    webhook.deliver(captured("app_uninstalled"))
    tasks.start_pending_mentions()
    assert Mention.objects.get().state == "failed"
    assert webhook.slack.calls() == []


@pytest.mark.case("S16")
def test_without_the_database_slack_is_asked_to_deliver_again_and_nothing_is_kept(
    webhook, workspace
):
    def is_down(*_arguments):
        raise OperationalError("the database is down")

    with connection.execute_wrapper(is_down):
        response = webhook.deliver(captured("mention"))
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert_no_effects(webhook)


@pytest.mark.case("S16")
@pytest.mark.django_db(transaction=True)
def test_slack_gets_200_if_the_database_fails_after_recording_a_mention(
    webhook, workspace, temporal
):
    def fails_at_the_decision(execute, sql, *rest):
        if sql.startswith("UPDATE") and "lease_until" in sql:
            raise OperationalError("the database is down")
        return execute(sql, *rest)

    with connection.execute_wrapper(fails_at_the_decision):
        message = webhook.mention()
    assert Mention.objects.get().state == "received"
    tasks.start_pending_mentions()
    assert Mention.objects.get().state == "started"
    assert temporal.has(workflow_of(message))


def test_a_sweep_without_temporal_stops_after_a_few_attempts_and_tries_others_next(
    webhook, workspace, no_temporal
):
    for _ in range(5):
        webhook.mention()
    first_tried = {mention.pk: mention.lease_until for mention in Mention.objects.all()}
    tasks.start_pending_mentions()
    tasks.start_pending_mentions()
    mentions = Mention.objects.all()
    assert all(mention.lease_until > first_tried[mention.pk] for mention in mentions)
    assert {mention.state for mention in mentions} == {"received"}


def test_a_mention_listed_before_another_process_tried_is_not_denied(
    webhook, workspace, temporal, out_of_credits
):
    """That process may have started the workflow, which a denial would contradict."""
    listed = Mention.objects.create(
        workspace=workspace, team_id="T1", channel_id="C1", ts="1.1", thread_ts="1.1",
        user_id="U1", text="fix the login page",
    )  # fmt: skip
    Mention.objects.update(lease_until=timezone.now())
    mentions.admit(listed)
    assert Mention.objects.get().state == "started"


@pytest.mark.case("S21")
def test_the_workflow_decides_if_the_quota_is_unknown(
    webhook, workspace, out_of_credits, temporal, no_redis
):
    def quota_is_down(execute, sql, *rest):
        if "quota_" in sql:
            raise OperationalError("this table cannot be read")
        return execute(sql, *rest)

    with connection.execute_wrapper(quota_is_down):
        message = webhook.mention()
    assert Mention.objects.get().state == "started"
    assert temporal.has(workflow_of(message))
    assert not Notice.objects.exists()


def test_without_redis_the_database_decides(webhook, workspace, out_of_credits, no_redis):
    webhook.mention()
    assert Mention.objects.get().state == "refused"


@pytest.mark.case("Q13")
def test_a_flushed_redis_admits_nothing_over_quota(
    webhook, workspace, out_of_credits, redis_client
):
    redis_client.flushall()
    webhook.mention()
    assert Mention.objects.get().state == "refused"
