"""Notices are claimed once and sent once, whatever Slack does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connections
from django.utils import timezone

from coding_tasks.models import CodingTask, Repository
from projects.models import Organization, Project, SlackWorkspace
from quota.gate import Verdict
from tests.fakes import FakeSlack
from workflows import denials, notices, tasks
from workflows.models import FollowUp, Mention, Notice, SlackPause
from workflows.slack import posting


@pytest.fixture
def slack(_slack: FakeSlack, settings) -> Iterator[FakeSlack]:
    _slack.reset()
    settings.SLACK_API_URL = _slack.api_url
    yield _slack
    assert _slack.violations() == []


@pytest.fixture
def workspace(db) -> SlackWorkspace:
    organization = Organization.objects.create(name="Acme")
    project = Project.objects.create(organization=organization, name="Main")
    return SlackWorkspace.objects.create(
        project=project, team_id="T1", bot_user_id="UBOT", bot_token="xoxb-demo"
    )


@pytest.fixture
def mention(workspace, slack) -> Mention:
    message = slack.post()
    return Mention.objects.create(
        workspace=workspace,
        team_id="T1",
        channel_id="C1",
        ts=message["ts"],
        thread_ts=message["ts"],
        user_id="U1",
        text=message["text"],
    )


@pytest.fixture
def notice(mention) -> Notice:
    return notices.claim(f"denial:{mention.pk}", Notice.Kind.DENIAL, mention, "No credits.")


def deliver_again(notice: Notice) -> None:
    """Deliver after the wait between attempts, and any wait of the workspace, has passed."""
    Notice.objects.update(next_attempt_at=timezone.now())
    SlackPause.objects.update(until=timezone.now())
    notices.deliver(notice)
    notice.refresh_from_db()


def deliver(notice: Notice) -> Notice:
    notices.deliver(notice)
    notice.refresh_from_db()
    return notice


# --- Claiming ------------------------------------------------------------------------------------
def test_a_notice_of_the_same_key_is_the_same_notice(mention, notice):
    again = notices.claim(notice.key, Notice.Kind.DENIAL, mention, "other words")
    assert (again.pk, again.text) == (notice.pk, "No credits.")


@pytest.mark.case("W3")
@pytest.mark.django_db(transaction=True)
def test_a_notice_claimed_by_many_at_once_is_one(mention):
    def claim(_number: int) -> str:
        try:
            return str(notices.claim("a key", Notice.Kind.DENIAL, mention, "No credits.").pk)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(claim, range(8)))) == 1


def verdict() -> Verdict:
    return Verdict(
        resource="ai_credits",
        limited=True,
        state="limited",
        reason="limit_reached",
        limited_until=None,
        resets_at=None,
        remaining_micro=0,
        source="redis",
    )


@pytest.fixture
def replies(mention) -> list[FollowUp]:
    """Three replies in the thread of a running task; the second names the bot."""
    project = mention.workspace.project
    CodingTask.objects.create(
        project=project,
        repository=Repository.objects.create(project=project, full_name="a/b", clone_url="x"),
        workspace=mention.workspace,
        channel_id="C1",
        thread_ts=mention.ts,
        owner_slack_user_id="U1",
        title="Look",
        workflow_id="the workflow",
    )
    return [
        FollowUp.objects.create(
            workspace=mention.workspace,
            channel_id="C1",
            ts=f"{number}.0",
            thread_ts=mention.ts,
            user_id="U1",
            text="go on",
            addressed=number == 2,
            workflow_id="the workflow",
        )
        for number in (1, 2, 3)
    ]


def test_replies_that_do_not_name_the_bot_share_one_denial(replies):
    first, naming, third = replies
    said = denials.claim(first, verdict())
    assert denials.claim(third, verdict()) == said
    assert denials.claim(naming, verdict()) != said
    assert denials.claim(naming, verdict()) == denials.claim(naming, verdict())


def test_a_denial_from_before_the_task_is_not_shared_with_replies(mention, replies):
    before = denials.claim(mention, verdict())
    Notice.objects.update(created_at=timezone.now() - timedelta(hours=1))
    assert denials.claim(replies[0], verdict()) != before


# --- Sending -------------------------------------------------------------------------------------
def test_a_notice_is_posted_in_its_thread_once(slack, mention, notice):
    for _ in range(3):
        deliver(notice)
    [posted] = slack.bot_messages("C1", mention.ts)
    assert (posted["text"], posted["ts"]) == ("No credits.", notice.message_ts)
    assert (notice.state, notice.attempts) == ("sent", 1)
    assert posted["metadata"] == {
        "event_type": "tollgate_notice",
        "event_payload": {"notice": str(notice.pk)},
    }


def test_blocks_are_posted_with_the_text_as_their_fallback(slack, mention):
    block = {"type": "section", "text": {"type": "mrkdwn", "text": "Which?"}}
    deliver(notices.claim("a key", Notice.Kind.PICKER, mention, "Which?", blocks=[block]))
    [posted] = slack.bot_messages("C1")
    assert (posted["text"], posted["blocks"]) == ("Which?", [block])


@pytest.mark.django_db(transaction=True)
def test_a_notice_delivered_by_many_at_once_is_posted_once(slack, notice):
    def deliver(_number: int) -> None:
        try:
            notices.deliver(notice)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(deliver, range(8)))
    assert len(slack.calls("chat.postMessage")) == 1


def test_a_rate_limit_is_waited_out_as_long_as_slack_says(slack, notice):
    slack.fail_next("chat.postMessage", "ratelimited", retry_after=70)
    before = timezone.now()
    deliver(notice)
    assert notice.state == "pending"
    assert notice.next_attempt_at >= before + timedelta(seconds=70)
    deliver(notice)
    assert len(slack.calls("chat.postMessage")) == 1
    deliver_again(notice)
    assert notice.state == "sent"


def test_a_very_long_rate_limit_is_capped_at_an_hour(slack, notice):
    slack.fail_next("chat.postMessage", "ratelimited", retry_after=10**15)
    deliver(notice)
    assert notice.state == "pending"
    assert notice.next_attempt_at <= timezone.now() + timedelta(hours=1)


def test_waits_between_attempts_grow_to_minutes_at_most(slack, notice):
    for seconds in (2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300):
        slack.fail_next("chat.postMessage", "service_unavailable")
        Notice.objects.update(next_attempt_at=timezone.now())
        before = timezone.now()
        deliver(notice)
        next_attempt_after = notice.next_attempt_at - timedelta(seconds=seconds)
        assert before <= next_attempt_after <= timezone.now()


def test_the_thread_is_searched_after_a_lost_response(slack, mention, notice):
    slack.drop_answer_next("chat.postMessage")
    assert deliver(notice).state == "sending"
    deliver_again(notice)
    [posted] = slack.bot_messages("C1", mention.ts)
    assert (notice.state, notice.message_ts) == ("sent", posted["ts"])


@pytest.mark.parametrize("error", ["internal_error", "fatal_error"])
def test_after_a_failure_that_may_have_posted_the_thread_is_searched_first(slack, notice, error):
    slack.fail_next("chat.postMessage", error)
    assert deliver(notice).state == "sending"
    deliver_again(notice)
    assert notice.state == "sent"
    methods = [call.method for call in slack.calls()]
    assert methods == ["chat.postMessage", "conversations.replies", "chat.postMessage"]


def test_a_search_that_is_rate_limited_does_not_count_as_not_found(slack, mention, notice):
    slack.drop_answer_next("chat.postMessage")
    slack.fail_next("conversations.replies", "ratelimited", retry_after=1)
    deliver(notice)
    deliver_again(notice)
    assert notice.state == "sending"
    deliver_again(notice)
    assert notice.state == "sent"
    assert len(slack.bot_messages("C1", mention.ts)) == 1


@pytest.mark.case("U12")
def test_a_search_goes_through_all_pages_of_a_long_thread(slack, mention, notice, monkeypatch):
    monkeypatch.setattr(posting, "_PAGE", 2)
    for number in range(5):
        slack.post(f"remark {number}", user="U2", thread_ts=mention.ts)
    slack.drop_answer_next("chat.postMessage")
    deliver(notice)
    deliver_again(notice)
    assert len(slack.calls("conversations.replies")) == 4
    assert len(slack.bot_messages("C1", mention.ts)) == 1


def test_another_notices_message_is_not_mistaken_for_ours(slack, mention):
    deliver(notices.claim("another", Notice.Kind.DENIAL, mention, "No credits."))
    notice = notices.claim("ours", Notice.Kind.DENIAL, mention, "No credits.")
    slack.fail_next("chat.postMessage", "internal_error")
    deliver(notice)
    deliver_again(notice)
    assert len(slack.bot_messages("C1", mention.ts)) == 2


def test_the_sender_after_a_dead_one_searches_first(slack, mention, notice):
    Notice.objects.update(
        state=Notice.State.SENDING, next_attempt_at=timezone.now() + timedelta(seconds=60)
    )
    deliver(notice)
    assert slack.calls() == []
    deliver_again(notice)
    assert [call.method for call in slack.calls()] == ["conversations.replies", "chat.postMessage"]
    assert notice.state == "sent"


def test_a_sender_that_lost_its_lease_overwrites_nothing(slack, notice, monkeypatch):
    def while_the_lease_runs_out(client, current):
        Notice.objects.update(next_attempt_at=timezone.now() + timedelta(seconds=5), error="later")
        return "1.0"

    monkeypatch.setattr(notices, "_send", while_the_lease_runs_out)
    deliver(notice)
    assert (notice.state, notice.error) == ("sending", "later")


def test_a_sender_whose_search_outlasts_its_lease_posts_nothing(slack, notice, monkeypatch):
    Notice.objects.update(state=Notice.State.SENDING)
    search = posting.find

    def slowly(*arguments):
        found = search(*arguments)
        Notice.objects.update(next_attempt_at=timezone.now() + timedelta(seconds=5))  # of another
        return found

    monkeypatch.setattr(posting, "find", slowly)
    deliver_again(notice)
    assert slack.calls("chat.postMessage") == []
    assert notice.state == "sending"


def test_a_sender_delayed_beyond_its_lease_posts_nothing(slack, notice, monkeypatch):
    make_client = notices.client_for

    def slowly(workspace):
        Notice.objects.update(next_attempt_at=timezone.now() + timedelta(seconds=5))  # of another
        return make_client(workspace)

    monkeypatch.setattr(notices, "LEASE", timedelta(seconds=-1))
    monkeypatch.setattr(notices, "client_for", slowly)
    deliver(notice)
    assert slack.calls() == []
    assert notice.state == "sending"


def test_an_unreachable_slack_is_tried_again_without_a_search(slack, notice, settings):
    reachable, settings.SLACK_API_URL = settings.SLACK_API_URL, "http://127.0.0.1:1/api/"
    assert deliver(notice).state == "pending"
    settings.SLACK_API_URL = reachable
    deliver_again(notice)
    assert notice.state == "sent"
    assert [call.method for call in slack.calls()] == ["chat.postMessage"]


@pytest.mark.parametrize("error", ["is_archived", "not_in_channel", "restricted_action"])
def test_the_user_alone_is_told_if_the_thread_refuses(slack, mention, notice, error):
    slack.fail_next("chat.postMessage", error)
    deliver(notice)
    [shown] = slack.ephemeral_messages("C1")
    assert (shown["visible_to"], shown["thread_ts"]) == ("U1", mention.ts)
    assert (notice.state, notice.destination, notice.error) == ("sent", "ephemeral", error)


def test_a_notice_is_given_up_if_the_user_cannot_be_told_either(slack, notice):
    slack.fail_next("chat.postMessage", "is_archived")
    slack.fail_next("chat.postEphemeral", "user_not_in_channel")
    deliver(notice)
    assert (notice.state, notice.error) == ("given_up", "user_not_in_channel")
    deliver_again(notice)
    assert len(slack.calls()) == 2


def test_an_ephemeral_message_with_unknown_outcome_is_not_repeated(slack, notice):
    slack.fail_next("chat.postMessage", "is_archived")
    slack.drop_answer_next("chat.postEphemeral")
    deliver(notice)
    deliver_again(notice)
    assert notice.state == "given_up"
    assert len(slack.calls("chat.postEphemeral")) == 1


def test_a_sender_that_died_while_telling_the_user_alone_is_not_repeated(slack, notice):
    Notice.objects.update(state="sending", destination="ephemeral")
    deliver_again(notice)
    assert (notice.state, notice.error) == ("given_up", "outcome_unknown")
    assert slack.calls() == []


def test_a_rate_limited_ephemeral_message_is_sent_later(slack, notice):
    slack.fail_next("chat.postMessage", "is_archived")
    slack.fail_next("chat.postEphemeral", "ratelimited", retry_after=1)
    assert deliver(notice).state == "pending"
    deliver_again(notice)
    assert notice.state == "sent"
    assert len(slack.calls("chat.postMessage")) == 1


def test_a_notice_is_given_up_after_six_hours_of_failures(slack, notice):
    Notice.objects.update(created_at=timezone.now() - timedelta(hours=6, seconds=1), attempts=70)
    slack.fail_next("chat.postMessage", "service_unavailable")
    assert deliver(notice).state == "given_up"


def test_a_notice_untried_for_six_hours_is_tried_more_than_once(slack, notice):
    """Our processes were down for a night, and then Slack limits our rate."""
    Notice.objects.update(created_at=timezone.now() - timedelta(hours=9))
    slack.fail_next("chat.postMessage", "ratelimited", retry_after=1)
    assert deliver(notice).state == "pending"
    deliver_again(notice)
    assert notice.state == "sent"


@pytest.mark.parametrize("error", ["account_inactive", "token_revoked", "invalid_auth"])
def test_a_notice_is_given_up_if_the_bot_token_is_invalid(slack, notice, error):
    slack.fail_next("chat.postMessage", error)
    assert deliver(notice).state == "given_up"
    assert len(slack.calls()) == 1


def test_a_workspace_that_uninstalled_the_app_is_not_called(slack, workspace, notice):
    SlackWorkspace.objects.update(is_active=False)
    assert (deliver(notice).state, notice.error) == ("given_up", "uninstalled")
    assert slack.calls() == []


def test_a_token_that_cannot_be_decrypted_is_waited_for(slack, notice, settings):
    settings.SECRET_KEY = "another secret, which cannot decrypt what the first one encrypted"
    assert (deliver(notice).state, notice.error) == ("pending", "bot_token_unreadable")


# --- The sweep -----------------------------------------------------------------------------------
# --- After a stop --------------------------------------------------------------------------------
WITHHELD = [
    "denial",
    "failure",
    "picker",
    "no_access",
    "question",
    "quote",
    "diff",
    "file",
    "offer",
]


@pytest.mark.parametrize("kind", sorted(set(Notice.Kind.values) - {"progress"}))
def test_only_answers_are_posted_after_a_stop(slack, mention, kind):
    Mention.objects.update(state=Mention.State.STOPPED)
    notice = deliver(notices.claim("key", kind, mention, "Words."))
    assert (notice.state == Notice.State.GIVEN_UP) == (kind in WITHHELD)
    assert len(slack.bot_messages("C1")) == (kind not in WITHHELD)


@pytest.mark.parametrize("state", CodingTask.State.values)
def test_a_denial_of_a_reply_is_withheld_only_if_its_task_was_stopped(slack, replies, state):
    CodingTask.objects.update(state=state)
    notice = deliver(denials.claim(replies[0], verdict()))
    assert (notice.state == Notice.State.GIVEN_UP) == (state == CodingTask.State.STOPPED)


def test_the_notice_of_a_stop_waits_for_notices_being_sent(slack, mention, notice, monkeypatch):
    """The stop is committed while the denial is on its way to Slack."""
    stop = notices.claim("stop", Notice.Kind.STOP, mention, "Stopped.")
    post = posting.post

    def stopped_meanwhile(client, posted, message):
        if posted.pk == notice.pk:
            Mention.objects.update(state=Mention.State.STOPPED)
            notices.deliver(stop)
        return post(client, posted, message)

    monkeypatch.setattr(posting, "post", stopped_meanwhile)
    notices.deliver(notice)
    deliver_again(stop)
    assert [each["text"] for each in slack.bot_messages("C1")] == ["No credits.", "Stopped."]


def test_the_notice_of_a_stop_does_not_wait_for_long(slack, mention, notice):
    """A sender died, or does not know whether Slack accepted its message."""
    stop = notices.claim("stop", Notice.Kind.STOP, mention, "Stopped.")
    soon = timezone.now() + timedelta(minutes=5)
    Notice.objects.filter(pk=notice.pk).update(state=Notice.State.SENDING, next_attempt_at=soon)
    assert deliver(stop).state == Notice.State.PENDING
    Notice.objects.filter(pk=stop.pk).update(
        created_at=timezone.now() - notices.LEASE, next_attempt_at=timezone.now()
    )
    assert deliver(stop).state == Notice.State.SENT


def test_the_sweep_sends_what_is_due_and_leaves_the_rest(slack, mention, notice):
    notices.claim("later", Notice.Kind.DENIAL, mention, "later")
    Notice.objects.filter(key="later").update(next_attempt_at=timezone.now() + timedelta(hours=1))
    tasks.deliver_pending_notices()
    assert [message["text"] for message in slack.bot_messages("C1")] == ["No credits."]


def test_a_row_that_cannot_be_handled_does_not_stop_the_sweep(slack, mention, notice, monkeypatch):
    broken = notices.claim("broken", Notice.Kind.DENIAL, mention, "broken")
    Notice.objects.filter(pk=broken.pk).update(next_attempt_at=timezone.now() - timedelta(hours=1))
    send = notices._send

    def fail_on_broken(client, attempt):
        if attempt.notice.pk == broken.pk:
            raise AssertionError("a mistake of ours")
        return send(client, attempt)

    monkeypatch.setattr(notices, "_send", fail_on_broken)
    tasks.deliver_pending_notices()
    notice.refresh_from_db()
    assert notice.state == "sent"


@pytest.mark.parametrize(
    ("kind", "key"),
    [(Notice.Kind.FILE, "file:{}:0"), (Notice.Kind.DIFF, "diff:{}")],
)
def test_a_file_that_was_erased_meanwhile_is_given_up(mention, slack, kind, key):
    notice = notices.claim(key.format(uuid4()), kind, mention, "The file.")
    notices.deliver(notice)
    notice.refresh_from_db()
    assert (notice.state, notice.error) == (Notice.State.GIVEN_UP, "erased")
    assert slack.bot_messages("C1", mention.thread_ts) == []
