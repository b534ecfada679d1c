"""Bot tokens that expire are renewed in time and once. The old one stays until there is another."""

from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.utils import timezone
from slack_sdk.errors import SlackApiError

from projects.models import RotatingToken, SlackWorkspace
from projects.slack import rotating_tokens
from tests.conftest import wait_until
from tests.fakes import BOT_TOKEN
from tests.settings import ON_POSTGRES
from tests.workflows.test_notices import slack as slack
from tests.workflows.test_notices import workspace as workspace
from workflows import notices, tasks
from workflows.models import Notice
from workflows.slack import token_rotation
from workflows.slack.client import client_for, web_client

HALF_A_DAY = timedelta(hours=12)


@pytest.fixture(autouse=True)
def slack_app(settings) -> None:
    settings.SLACK_CLIENT_ID = "1.2"
    settings.SLACK_CLIENT_SECRET = "the client secret"


@pytest.fixture
def rotating(slack, workspace) -> RotatingToken:
    """The token of a workspace, which was installed just now."""
    slack.rotate_tokens()
    refresh_token = slack.slack.installations.new_refresh_token("T1")
    rotating_tokens.keep(workspace, refresh_token, HALF_A_DAY, timezone.now())
    return RotatingToken.objects.get()


def refreshes(slack) -> list[dict[str, str]]:
    return [call.arguments for call in slack.calls("oauth.v2.access")]


def bot_token() -> str:
    return SlackWorkspace.objects.get().bot_token


def make_due() -> None:
    RotatingToken.objects.update(refresh_at=timezone.now())


def refresh_due(now: datetime) -> None:
    for token in rotating_tokens.due(now):
        token_rotation.refresh(token, now)


def test_a_token_is_renewed_two_hours_before_its_end(slack, rotating):
    refresh_due(rotating.expires_at - timedelta(hours=2, seconds=1))
    assert refreshes(slack) == []
    refresh_due(rotating.expires_at - timedelta(hours=2))
    [sent] = refreshes(slack)
    assert sent["grant_type"] == "refresh_token"
    [call] = slack.calls("oauth.v2.access")
    assert b64decode(call.authorization.split()[1]) == b"1.2:the client secret"
    assert bot_token().startswith("xoxe.xoxb-1-")
    renewed = RotatingToken.objects.get()
    assert renewed.refresh_token != rotating.refresh_token
    assert renewed.expires_at > timezone.now() + HALF_A_DAY - timedelta(minutes=1)
    assert renewed.problem == ""
    assert client_for(SlackWorkspace.objects.get()).auth_test()["ok"]


def test_a_token_can_be_renewed_again_and_again(slack, rotating):
    for _ in range(3):
        make_due()
        tasks.refresh_slack_tokens()
    assert len({sent["refresh_token"] for sent in refreshes(slack)}) == 3
    assert RotatingToken.objects.get().problem == ""


def test_a_short_lived_token_is_used_for_half_of_its_life(workspace):
    now = timezone.now()
    rotating_tokens.keep(workspace, "xoxe-1-x", timedelta(hours=1), now)
    assert RotatingToken.objects.get().refresh_at == now + timedelta(minutes=30)


@pytest.mark.django_db(transaction=True)
def test_processes_that_look_at_once_use_the_refresh_token_once(slack, rotating):
    make_due()
    found = RotatingToken.objects.get()

    def refresh(_number: int) -> None:
        try:
            token_rotation.refresh(found, timezone.now())
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(refresh, range(6)))
    assert len(refreshes(slack)) == 1
    assert bot_token().startswith("xoxe.")


@pytest.fixture
def two_due(slack, rotating, workspace) -> list[RotatingToken]:
    """Two tokens that are due, in the order of their renewal. Slack doesn't know the first."""
    other = SlackWorkspace.objects.create(
        project=workspace.project, team_id="T2", bot_user_id="B2", bot_token="xoxb-2"
    )
    rotating_tokens.keep(other, "xoxe-1-other", timedelta(hours=5), timezone.now())
    make_due()
    return rotating_tokens.due(timezone.now())


def test_a_slow_renewal_leaves_no_other_token_to_two_processes(two_due, monkeypatch):
    due_meanwhile = []

    def slow_client(**options):
        due_meanwhile.append([token.pk for token in rotating_tokens.due(timezone.now())])
        later = timezone.now() + timedelta(minutes=2)
        monkeypatch.setattr(timezone, "now", lambda: later)
        return web_client(**options)

    monkeypatch.setattr(token_rotation, "web_client", slow_client)
    tasks.refresh_slack_tokens()
    _, second = two_due
    assert due_meanwhile[0] == [second.pk]
    assert second.pk not in due_meanwhile[1]


def test_a_token_that_fails_unexpectedly_leaves_the_others_their_turn(slack, two_due, monkeypatch):
    clients = iter([None])  # for the first token, so its renewal fails

    def client(**options):
        return next(clients, web_client(**options))

    monkeypatch.setattr(token_rotation, "web_client", client)
    tasks.refresh_slack_tokens()
    assert len(refreshes(slack)) == 1
    assert SlackWorkspace.objects.get(team_id="T1").bot_token.startswith("xoxe.")


def test_a_process_that_died_leaves_the_refresh_token_to_another(slack, rotating):
    make_due()
    now = timezone.now()
    assert rotating_tokens.claim(RotatingToken.objects.get(), now)
    refresh_due(now + timedelta(seconds=59))
    assert refreshes(slack) == []
    refresh_due(now + timedelta(seconds=61))
    assert len(refreshes(slack)) == 1


def test_both_tokens_are_encrypted_at_rest(rotating):
    with connection.cursor() as cursor:
        cursor.execute("SELECT refresh_token FROM projects_rotatingtoken")
        [(stored,)] = cursor.fetchall()
    assert "xoxe" not in stored


# --- Failures ------------------------------------------------------------------------------------
@pytest.mark.parametrize("error", ["invalid_refresh_token", "invalid_grant"])
def test_a_spent_refresh_token_is_reported_and_not_tried_again(slack, rotating, error):
    slack.fail_next("oauth.v2.access", error)
    make_due()
    tasks.refresh_slack_tokens()
    refresh_due(timezone.now() + timedelta(days=1))
    assert len(refreshes(slack)) == 1
    found = RotatingToken.objects.get()
    assert (found.problem, found.refresh_at) == (error, None)
    assert bot_token() == BOT_TOKEN  # it works until it expires
    assert SlackWorkspace.objects.get().is_active


@pytest.mark.parametrize(
    ("error", "status", "wait"),
    [
        ("internal_error", 200, timedelta(minutes=1)),
        ("service_unavailable", 503, timedelta(minutes=1)),
        ("bad_client_secret", 200, timedelta(minutes=10)),
        ("invalid_client_id", 200, timedelta(minutes=10)),
    ],
)
def test_other_failures_are_tried_again(slack, rotating, error, status, wait):
    slack.fail_next("oauth.v2.access", error, status=status)
    make_due()
    now = timezone.now()
    refresh_due(now)
    found = RotatingToken.objects.get()
    assert (found.problem, found.refresh_at) == (error, now + wait)
    refresh_due(now + wait)
    assert bot_token().startswith("xoxe.")
    assert RotatingToken.objects.get().problem == ""


def test_slack_is_left_alone_for_as_long_as_it_asks(slack, rotating):
    slack.fail_next("oauth.v2.access", "ratelimited", retry_after=300)
    make_due()
    now = timezone.now()
    refresh_due(now)
    assert RotatingToken.objects.get().refresh_at == now + timedelta(minutes=5)


def test_a_slack_that_cannot_be_reached_is_tried_again(slack, rotating, settings):
    real, settings.SLACK_API_URL = settings.SLACK_API_URL, "http://127.0.0.1:1/api/"
    make_due()
    now = timezone.now()
    refresh_due(now)
    assert RotatingToken.objects.get().problem == "ConnectionRefusedError"
    settings.SLACK_API_URL = real
    refresh_due(now + timedelta(minutes=1))
    assert bot_token().startswith("xoxe.")


@pytest.mark.parametrize(
    "lacking", [{"access_token": ""}, {"refresh_token": None}, {"expires_in": "soon"}]
)
def test_an_incomplete_answer_replaces_nothing(slack, rotating, monkeypatch, lacking):
    given = slack.slack.web_api._oauth_v2_access
    monkeypatch.setattr(
        slack.slack.web_api, "_oauth_v2_access", lambda *arguments: given(*arguments) | lacking
    )
    make_due()
    tasks.refresh_slack_tokens()
    assert bot_token() == BOT_TOKEN
    assert RotatingToken.objects.get().problem == "an incomplete answer"


def test_without_the_apps_secret_slack_is_not_asked(slack, rotating, settings):
    settings.SLACK_CLIENT_SECRET = ""
    make_due()
    tasks.refresh_slack_tokens()
    assert refreshes(slack) == []
    assert "SLACK_CLIENT_SECRET" in RotatingToken.objects.get().problem


def test_an_uninstalled_app_has_nothing_to_renew(slack, rotating):
    SlackWorkspace.objects.update(is_active=False)
    make_due()
    tasks.refresh_slack_tokens()
    assert refreshes(slack) == []


def test_an_installation_during_a_renewal_wins(slack, rotating, workspace):
    make_due()
    token = RotatingToken.objects.get()
    lease = rotating_tokens.claim(token, timezone.now())
    rotating_tokens.keep(workspace, "xoxe-1-newer", HALF_A_DAY, timezone.now())
    kept = rotating_tokens.replace(
        token, lease, "xoxe.xoxb-1-older", "xoxe-1-older", HALF_A_DAY, timezone.now()
    )
    assert kept is False
    assert bot_token() == BOT_TOKEN
    assert RotatingToken.objects.get().refresh_token == "xoxe-1-newer"


def is_anybody_waiting_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid IN "
            "(SELECT pid FROM pg_stat_activity WHERE datname = current_database()))"
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.skipif(not ON_POSTGRES, reason="SQLite has one writer")
@pytest.mark.django_db(transaction=True)
def test_an_installation_and_a_renewal_do_not_wait_for_each_other(slack, rotating, workspace):
    make_due()
    lease = rotating_tokens.claim(RotatingToken.objects.get(), timezone.now())
    token = RotatingToken.objects.get()

    def replace() -> bool:
        try:
            now = timezone.now()
            return rotating_tokens.replace(token, lease, "xoxe.x", "xoxe-1-x", HALF_A_DAY, now)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            SlackWorkspace.objects.select_for_update().get()  # as an installation does first
            replaced = pool.submit(replace)
            wait_until(is_anybody_waiting_for_a_lock)
            rotating_tokens.keep(workspace, "xoxe-1-newer", HALF_A_DAY, timezone.now())
        assert replaced.result(60) is False
    assert RotatingToken.objects.get().refresh_token == "xoxe-1-newer"


# --- token_expired -------------------------------------------------------------------------------
def test_a_token_that_slack_calls_expired_is_renewed_soon(slack, rotating):
    slack.expire()
    with pytest.raises(SlackApiError, match="token_expired"):
        client_for(SlackWorkspace.objects.get()).auth_test()
    tasks.refresh_slack_tokens()
    assert client_for(SlackWorkspace.objects.get()).auth_test()["ok"]


def test_a_message_waits_for_the_new_token(slack, rotating, workspace):
    slack.expire()
    notice = Notice.objects.create(
        key="n1",
        kind=Notice.Kind.OFFER,
        workspace=workspace,
        channel_id="C1",
        text="Hello",
    )
    notices.deliver(notice)
    notice.refresh_from_db()
    assert notice.state == Notice.State.PENDING
    tasks.refresh_slack_tokens()
    Notice.objects.update(next_attempt_at=timezone.now())
    tasks.deliver_pending_notices()
    assert [message["text"] for message in slack.bot_messages()] == ["Hello"]


def test_a_caller_with_an_older_token_causes_no_renewal(rotating):
    due_at = rotating.refresh_at
    SlackWorkspace.objects.update(bot_token="xoxe.xoxb-1-newer")
    assert rotating_tokens.note_expired(rotating.workspace_id, BOT_TOKEN, timezone.now()) is False
    assert RotatingToken.objects.get().refresh_at == due_at


def test_an_expired_token_is_not_renewed_by_two_at_once(rotating):
    make_due()
    rotating_tokens.claim(RotatingToken.objects.get(), timezone.now())
    noted = rotating_tokens.note_expired(rotating.workspace_id, BOT_TOKEN, timezone.now())
    assert noted is False


def test_a_changed_secret_key_keeps_the_refresh_token(slack, rotating, settings):
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another secret key, which is longer than fifty characters, too"
    call_command("reencrypt_secrets")
    settings.SECRET_KEY_FALLBACKS = []
    assert RotatingToken.objects.get().refresh_token == rotating.refresh_token
