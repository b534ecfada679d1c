"""`manage.py doctor` names what is wrong and what to do, and prints no secret."""

import json
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from billing.models import QuarantinedEvent
from console.doctor import services, stores
from console.doctor.findings import Finding, as_text, clock_finding
from console.management.commands import doctor
from projects.change_feed import Change, cursor
from projects.models import RotatingToken, SlackWorkspace
from projects.redis_connection import redis_connection
from projects.slack import rotating_tokens
from quota.published.limited_set import MARKER
from slack_bot.models import SlackSocket
from tests.fakes import FakeSlack
from tests.ready_project import ready_project
from workflows.models import Mention


def by_check(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {one.check: one for one in findings}


def problems(findings: Iterator[Finding]) -> dict[str, str]:
    return {one.check: one.level for one in findings if one.level != "ok"}


@pytest.fixture
def workspace(db) -> SlackWorkspace:
    return SlackWorkspace.objects.create(
        project=ready_project("Acme", "Main"),
        team_id="T1",
        bot_user_id="UBOT",
        bot_token="xoxb-demo",
    )


# --- The stores ----------------------------------------------------------------------------------
@pytest.mark.django_db
def test_a_database_in_order_has_no_problem():
    found = by_check(stores.database_findings())
    assert {one.level for one in found.values()} == {"ok"}
    assert {"database", "migrations", "change feed", "mentions", "quarantine"} <= found.keys()


def test_a_dead_database_is_one_error_without_its_password(monkeypatch):
    def refuse():
        raise OperationalError("connection failed\n\tIs the server running?")

    monkeypatch.setattr(connection, "ensure_connection", refuse)
    [found] = stores.database_findings()
    assert found.level == "error"
    assert "OperationalError: connection failed)" in found.message


@pytest.mark.django_db
def test_migrations_that_were_not_run_are_an_error_and_nothing_else_is_asked():
    MigrationRecorder.Migration.objects.filter(app="workflows").delete()
    found = by_check(stores.database_findings())
    assert found["migrations"].level == "error"
    assert "workflows.0001" in found["migrations"].message
    assert "mentions" not in found


@pytest.mark.django_db
def test_a_change_beyond_the_cursor_is_an_error():
    Change.objects.create(version=cursor().version + 5, kind="quota", payload={})
    assert problems(stores.database_findings()) == {"change feed": "error"}


def test_work_that_waits_too_long_is_named(workspace):
    mention = Mention.objects.create(
        workspace=workspace, team_id="T1", channel_id="C1", ts="1.1", thread_ts="1.1", user_id="U1",
        text="fix it",
    )  # fmt: skip
    assert problems(stores.database_findings()) == {}
    Mention.objects.update(received_at=timezone.now() - timedelta(minutes=2))
    QuarantinedEvent.objects.create(
        reason="test", payload="{}", payload_sha256="1", received_at=timezone.now()
    )
    found = problems(stores.database_findings())
    assert found == {"mentions": "error", "quarantine": "warning"}
    Mention.objects.filter(pk=mention.pk).update(state=Mention.State.REFUSED)
    assert "mentions" not in problems(stores.database_findings())


@pytest.fixture
def no_celery(monkeypatch):
    """No worker answers, and the command doesn't wait a second for one."""
    monkeypatch.setattr(stores.current_app.control, "ping", lambda timeout: [])


def test_redis_without_a_marker_or_a_worker_says_what_to_start(redis_client, no_celery):
    found = by_check(stores.redis_findings())
    assert found["redis"].level == "ok"
    assert "run_reconciler" in found["marker"].do
    assert found["celery"].level == "error"
    redis_client.set(MARKER, "nonce")
    assert problems(stores.redis_findings()) == {"celery": "error"}


def test_a_dead_redis_is_one_error_without_its_password(settings):
    settings.REDIS_URL = "redis://:the-password@127.0.0.1:1/0"
    redis_connection.cache_clear()
    try:
        [found] = stores.redis_findings()
    finally:
        redis_connection.cache_clear()
    assert found.level == "error"
    assert "the-password" not in repr(found)


def test_an_old_redis_and_one_that_keeps_nothing_are_named():
    found = by_check(stores._server({"redis_version": "6.0.9", "aof_enabled": 0}))
    assert [one.level for one in found.values()] == ["error", "warning"]
    full = {"valkey_version": "9.1.0", "aof_enabled": 1, "aof_last_write_status": "err"}
    assert problems(stores._server(full)) == {"redis data": "error"}
    assert problems(stores._server(full | {"aof_last_write_status": "ok"})) == {}


def test_a_clock_that_differs_is_a_warning():
    assert clock_finding("clock", 1.9).level == "ok"
    assert clock_finding("clock", -30).message.startswith("its clock is 30 s behind")


@pytest.mark.django_db
def test_the_system_checks_are_findings(settings, redis_client):
    settings.PUBLIC_URL = "http://tollgate.example.com"
    settings.SLACK_SIGNING_SECRETS = []
    found = problems(stores.settings_findings())
    assert found["tollgate.W001"] == "warning"
    assert found["tollgate.E001"] == "error"


# --- The services --------------------------------------------------------------------------------
def test_temporal_without_a_worker_is_distinguished_from_no_temporal(temporal_address, settings):
    settings.TEMPORAL_TASK_QUEUE = "nobody-polls-this"
    assert problems(services.temporal_findings()) == {"workers": "error"}
    settings.TEMPORAL_NAMESPACE = "not-there"
    assert problems(services.temporal_findings()) == {"temporal": "error"}
    settings.TEMPORAL_ADDRESS = "127.0.0.1:1"
    [found] = services.temporal_findings()
    assert found.level == "error"
    assert "127.0.0.1:1" in found.message


def test_agents_are_missed_only_if_they_are_needed(settings, tmp_path):
    settings.AGENT_EXCHANGE_DIRECTORY = str(tmp_path)
    settings.DEFAULT_AGENT = "reader"
    assert problems(services.agent_findings()) == {}
    settings.DEFAULT_AGENT = "small"
    assert problems(services.agent_findings()) == {"agent workers": "warning"}


def test_slack_is_asked_for_each_installed_workspace_only(workspace, settings):
    with FakeSlack() as slack:
        settings.SLACK_API_URL = slack.api_url
        assert problems(services.slack_findings()) == {}
        SlackWorkspace.objects.update(bot_token="xoxb-revoked")
        [refused] = services.slack_findings()
    [unreachable] = services.slack_findings()
    assert refused.level == unreachable.level == "error"
    assert "invalid_auth" in refused.message
    assert "xoxb" not in repr([refused, unreachable])
    SlackWorkspace.objects.update(is_active=False)
    [nobody] = services.slack_findings()
    assert nobody.level == "ok"


def test_scopes_that_a_workspace_did_not_grant_are_named(workspace, settings, monkeypatch):
    monkeypatch.setattr("devstack.demo_slack.app.SCOPE", "chat:write,commands")
    with FakeSlack() as slack:
        settings.SLACK_API_URL = slack.api_url
        [_, lacking] = services.slack_findings()
    assert lacking.level == "warning"
    assert "users:read" in lacking.message
    assert SlackWorkspace.objects.get().scopes == "chat:write,commands"


def test_a_bot_token_that_cannot_be_renewed_is_an_error(workspace, settings):
    now = timezone.now()
    rotating_tokens.keep(workspace, "xoxe-1-x", timedelta(hours=12), now)
    with FakeSlack() as slack:
        settings.SLACK_API_URL = slack.api_url
        assert problems(services.slack_findings()) == {}
        RotatingToken.objects.update(problem="bad_client_secret")
        assert problems(services.slack_findings()) == {"slack token": "warning"}
        RotatingToken.objects.update(problem="invalid_refresh_token", refresh_at=None)
        assert problems(services.slack_findings()) == {"slack token": "error"}
        assert "xoxe" not in repr(list(services.slack_findings()))


def test_processes_in_socket_mode_are_listed(db):
    now = timezone.now()
    SlackSocket.objects.create(pk=uuid.uuid4(), process="a:1", seen_at=now, connected_since=now)
    SlackSocket.objects.create(pk=uuid.uuid4(), process="b:1", seen_at=now, problem="invalid_auth")
    [_, connected, refused] = services.slack_findings()
    assert (connected.level, refused.level) == ("ok", "error")
    assert "invalid_auth" in refused.message


class Gateway(BaseHTTPRequestHandler):
    missing: list[str] = []

    def do_GET(self):
        body = json.dumps({"ready": not self.missing, "missing": self.missing}).encode()
        self.send_response(503 if self.missing else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


def test_the_gateway_says_what_it_misses(settings, monkeypatch):
    with HTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        settings.GATEWAY_URL = f"http://127.0.0.1:{server.server_port}"
        assert problems(services.gateway_findings()) == {}
        monkeypatch.setattr(Gateway, "missing", ["redis", "tollgate"])
        [found] = services.gateway_findings()
        server.shutdown()
        thread.join()
    assert found.message == "it cannot serve without redis and tollgate"
    [unreachable] = services.gateway_findings()
    assert "Start the gateway" in unreachable.do


def test_the_gateways_own_checks_run_in_its_environment(monkeypatch):
    monkeypatch.setenv("GATEWAY_SERVICE_TOKEN", "token")
    monkeypatch.setenv("GATEWAY_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("TOLLGATE_URL", "http://127.0.0.1:1")
    found = problems(services.findings_of_the_gateway())
    assert found == {"gateway redis": "error", "gateway django": "error"}
    monkeypatch.delenv("GATEWAY_SERVICE_TOKEN")
    assert problems(services.findings_of_the_gateway()) == {"gateway.doctor": "error"}


# --- The command ---------------------------------------------------------------------------------
def checks(monkeypatch, *findings: Finding, failing: bool = False) -> None:
    def break_down() -> Iterator[Finding]:
        yield from findings
        if failing:
            raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(doctor, "CHECKS", {"one": break_down})


def test_warnings_alone_are_a_success(monkeypatch):
    checks(
        monkeypatch, Finding("redis", "ok", "it answers"), Finding("x", "warning", "odd", "Look.")
    )
    out = StringIO()
    call_command("doctor", stdout=out)
    assert out.getvalue().splitlines() == [
        "ok       redis              it answers",
        "warning  x                  odd",
        "                            → Look.",
    ]


def test_an_error_is_the_exit_status_and_json_is_complete(monkeypatch):
    checks(monkeypatch, Finding("redis", "error", "it is down", "Start it."))
    out = StringIO()
    with pytest.raises(CommandError, match="1 of 1 findings are errors"):
        call_command("doctor", json=True, stdout=out)
    [found] = json.loads(out.getvalue())
    assert found == {"check": "redis", "level": "error", "message": "it is down", "do": "Start it."}


def test_a_check_that_fails_hides_no_other(monkeypatch):
    checks(monkeypatch, Finding("redis", "ok", "it answers"), failing=True)
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("doctor", stdout=out)
    assert "it answers" in out.getvalue()
    assert "ZeroDivisionError: division by zero" in out.getvalue()


def test_every_problem_says_what_to_do(redis_client, no_celery, db):
    found = [*stores.database_findings(), *stores.redis_findings(), *services.gateway_findings()]
    assert all(one.do for one in found if one.level != "ok"), as_text(found)
