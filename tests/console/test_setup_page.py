"""The setup page says how far the setup is, and what to do next, and shows no secret."""

import json
import threading
import uuid
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
import yaml
from django.contrib.auth.models import Permission
from django.urls import reverse
from django.utils import timezone

from billing.allowances.limits import set_limit
from billing.models import UsageEvent
from billing.organizations import create_organization, create_project
from console.setup.step import State
from console.setup.steps import steps
from projects.models import Project, SlackWorkspace, User
from quota.resources import AI_CREDITS
from slack_bot.install import SCOPES
from slack_bot.models import SlackArrival, SlackSocket
from tests.billing.world import book, usage_event
from tests.fakes import FakeSlack

SETUP = "/setup/"
INDEX = reverse("admin:index")
ALL = [
    "Make the Slack app",
    "Give Tollgate the app's secrets",
    "Let Slack reach this server",
    "Make a project",
    "Set a limit",
    "Install the app in a workspace",
    "Grant what the bot needs",
    "Mention the bot",
    "Connect a model provider",
]


@pytest.fixture(autouse=True)
def nothing_answers(db, settings) -> None:
    """A server to which nothing is connected."""
    settings.SLACK_SIGNING_SECRETS = []
    settings.SLACK_API_URL = "http://127.0.0.1:1/api/"
    settings.GATEWAY_URL = "http://127.0.0.1:1"
    settings.PUBLIC_URL = "https://bot.acme.test"


@pytest.fixture
def project() -> Project:
    return create_project(create_organization("Acme"), "Main")


@pytest.fixture
def workspace(project) -> SlackWorkspace:
    return SlackWorkspace.objects.create(
        project=project,
        team_id="T1",
        name="Acme",
        bot_user_id="UBOT",
        bot_token="xoxb-demo",
        scopes=",".join(SCOPES),
    )


def step(title: str, ask: bool = False):
    [found] = [each for each in steps(timezone.now(), ask=ask) if each.title == title]
    return found


def titles(*, ask: bool) -> list[str]:
    return [each.title for each in steps(timezone.now(), ask=ask)]


def arrive(way: str = "http", kind: str = "events", ago: timedelta = timedelta()) -> None:
    SlackArrival.objects.update_or_create(way=way, kind=kind, defaults={"at": timezone.now() - ago})


def listen(**fields) -> SlackSocket:
    given = {"process": "host:1", "seen_at": timezone.now(), **fields}
    return SlackSocket.objects.create(pk=uuid.uuid4(), **given)


# --- Who may see it ------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [SETUP, "/setup/manifest-http.yaml", "/setup/?part=steps"])
def test_it_is_for_staff_who_may_install_the_app(client, path):
    assert client.get(path).status_code == 302
    client.force_login(User.objects.create_user("member"))
    assert client.get(path).status_code == 302
    staff = User.objects.create_user("staff", is_staff=True)
    client.force_login(staff)
    assert client.get(path).status_code == 403
    codes = ["view_project", "change_slackworkspace", "view_limit"]
    staff.user_permissions.set(Permission.objects.filter(codename__in=codes))
    assert client.get(path).status_code == 200


def test_it_loads_only_from_tollgate_itself(admin_client):
    for path in (SETUP, "/setup/?part=steps"):
        assert "default-src 'none'" in admin_client.get(path)["Content-Security-Policy"]


def test_no_secret_is_shown(admin_client, settings, workspace):
    settings.SLACK_SIGNING_SECRETS = ["the signing secret"]
    settings.SLACK_CLIENT_ID = "1.2"
    settings.SLACK_CLIENT_SECRET = "the client secret"
    page = admin_client.get(SETUP).content.decode()
    for secret in ("the signing secret", "the client secret", "xoxb-demo"):
        assert secret not in page


# --- The page ------------------------------------------------------------------------------------
def test_an_empty_server_has_everything_to_do(admin_client):
    answer = admin_client.get(SETUP)
    found = answer.context["steps"]
    assert [each.title for each in found] == ALL
    assert {each.title: each.state for each in found} == {
        title: State.WRONG if title == "Connect a model provider" else State.TO_DO for title in ALL
    }
    assert all(each.do for each in found)


def test_it_has_both_manifests_with_this_servers_address(admin_client):
    page = admin_client.get(SETUP).content.decode()
    assert page.count("https://bot.acme.test/slack/oauth_redirect/") == 2
    for variant, is_on in (("http", False), ("socket", True)):
        answer = admin_client.get(f"/setup/manifest-{variant}.yaml")
        assert "attachment" in answer["Content-Disposition"]
        made = yaml.safe_load(answer.content)
        assert made["settings"]["socket_mode_enabled"] is is_on
    assert admin_client.get("/setup/manifest-other.yaml").status_code == 404


def test_the_script_gets_the_steps_alone(admin_client):
    part = admin_client.get(SETUP, {"part": "steps"}).content.decode()
    assert all(title.replace("'", "&#x27;") in part for title in ALL)
    assert "<html" not in part
    assert "<textarea" not in part


def test_the_first_page_leads_here_until_everything_is_done(
    admin_client, settings, workspace, redis_client
):
    page = admin_client.get(INDEX).content.decode()
    assert f'href="{SETUP}"' in page
    settings.SLACK_SIGNING_SECRETS = ["secret"]
    arrive()
    set_limit(workspace.project.organization, AI_CREDITS, 100)
    book(usage_event(workspace.project))
    assert [each.title for each in steps(timezone.now(), ask=False) if not each.is_done] == []
    assert f'href="{SETUP}"' not in admin_client.get(INDEX).content.decode()


def test_the_first_page_asks_nobody(admin_client, workspace, monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr("console.setup.slack_steps.client_for", refuse)
    SlackWorkspace.objects.update(scopes="")
    assert admin_client.get(INDEX).status_code == 200


# --- Slack ---------------------------------------------------------------------------------------
def test_missing_secrets_are_named(settings):
    found = step(ALL[1])
    assert found.state is State.TO_DO
    assert found.found.startswith("Missing: SLACK_SIGNING_SECRET, ")
    settings.SLACK_SIGNING_SECRETS = ["secret"]
    settings.SLACK_CLIENT_ID = settings.SLACK_CLIENT_SECRET = "x"
    assert step(ALL[1]).is_done


def test_a_workspace_that_was_added_by_hand_needs_no_client_secret(settings, workspace):
    settings.SLACK_SIGNING_SECRETS = ["secret"]
    assert step(ALL[1]).is_done


def test_a_request_from_slack_shows_that_it_reaches_us():
    assert "https://bot.acme.test" in step(ALL[2]).found
    arrive(kind="interactivity", ago=timedelta(hours=3))
    found = step(ALL[2])
    assert found.is_done
    assert "3 hours ago" in found.found


def test_a_newer_request_with_a_wrong_signature_is_a_problem():
    arrive(ago=timedelta(hours=3))
    arrive("wrong")
    found = step(ALL[2])
    assert found.state is State.WRONG
    assert "SLACK_SIGNING_SECRET" in found.do
    arrive()
    assert step(ALL[2]).is_done


def test_without_a_public_address_socket_mode_is_advised(settings):
    settings.PUBLIC_URL = "http://localhost:8000"
    assert "slack_socket" in step(ALL[2]).do


def test_a_process_that_listens_is_named():
    listen(connected_since=timezone.now())
    found = step(ALL[2])
    assert found.is_done
    assert "host:1" in found.found


@pytest.mark.parametrize(
    ("problem", "advice"),
    [("invalid_auth", "SLACK_APP_TOKEN"), ("link_disabled", "Socket Mode"), ("else", "log")],
)
def test_the_reason_why_a_process_is_not_connected_is_shown(problem, advice):
    listen(problem=problem)
    found = step(ALL[2])
    assert found.state is State.WRONG
    assert problem in found.found
    assert advice in found.do


def test_a_process_that_died_is_forgotten():
    listen(connected_since=timezone.now(), seen_at=timezone.now() - timedelta(minutes=1))
    assert not step(ALL[2]).is_done


def test_the_installation_is_begun_here_or_added_by_hand(settings, workspace):
    assert "Acme for Acme / Main" in step(ALL[5]).found
    SlackWorkspace.objects.update(is_active=False)
    assert step(ALL[5]).link.address == reverse("admin:projects_slackworkspace_add")
    settings.SLACK_CLIENT_ID = "1.2"
    assert step(ALL[5]).link.address == reverse("slack-install")


def test_scopes_that_were_not_granted_are_named(workspace):
    assert step(ALL[6]).is_done
    SlackWorkspace.objects.update(scopes="chat:write, commands")
    found = step(ALL[6])
    assert found.state is State.WRONG
    assert "users:read" in found.found
    assert "chat:write" not in found.found


def test_slack_is_asked_once_for_scopes_that_are_not_known(workspace, settings):
    SlackWorkspace.objects.update(scopes="")
    with FakeSlack() as slack:
        settings.SLACK_API_URL = slack.api_url
        assert step(ALL[6], ask=True).is_done
        assert step(ALL[6], ask=True).is_done
        assert len(slack.calls("auth.test")) == 1
        SlackWorkspace.objects.update(scopes="")
        slack.uninstall()
        assert "account_inactive" in step(ALL[6], ask=True).found


def test_the_last_event_is_dated():
    arrive("wrong")
    assert not step(ALL[7]).is_done
    arrive("socket", ago=timedelta(days=2))
    found = step(ALL[7])
    assert found.is_done
    assert "2 days ago, over a socket" in found.found


# --- Work ----------------------------------------------------------------------------------------
def test_a_project_and_a_limit(project, redis_client):
    assert step(ALL[3]).is_done
    assert not step(ALL[4]).is_done
    set_limit(project.organization, AI_CREDITS, None)
    assert not step(ALL[4]).is_done
    set_limit(project.organization, AI_CREDITS, 100)
    assert step(ALL[4]).is_done


@pytest.fixture
def gateway(settings):
    """A gateway that is ready, or not: what it lacks is the yielded list."""
    missing: list[str] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"ready": not missing, "missing": missing}).encode()
            self.send_response(503 if missing else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    settings.GATEWAY_URL = f"http://127.0.0.1:{server.server_port}"
    yield missing
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_gateway_is_asked_until_a_model_has_answered(gateway, project, redis_client):
    assert "ready" in step(ALL[8], ask=True).found
    gateway.append("redis")
    assert "redis" in step(ALL[8], ask=True).found
    book(usage_event(project))
    assert step(ALL[8], ask=True).is_done


def test_a_provider_that_refuses_the_key_is_named(project, redis_client):
    book(usage_event(project))
    refused = {"$ai_provider": "openai", "$ai_is_error": True, "$ai_http_status": 401}
    book(usage_event(project, "0", properties=refused))
    assert UsageEvent.objects.filter(is_error=True).exists()
    found = step(ALL[8])
    assert found.state is State.WRONG
    assert "openai" in found.found


def test_a_step_that_slack_was_not_asked_about_does_not_count(workspace):
    assert titles(ask=False) == ALL
    workspace.scopes = ""
    workspace.save()
    assert titles(ask=False) == [title for title in ALL if title != "Grant what the bot needs"]
    assert titles(ask=True) == ALL


def test_a_workspace_that_lacks_scopes_counts_whatever_is_known_of_another(workspace, project):
    workspace.scopes = "chat:write"
    workspace.save()
    fields = {"project": project, "team_id": "T2", "name": "Other", "bot_user_id": "UBOT"}
    SlackWorkspace.objects.create(bot_token="xoxb-other", **fields)
    assert step("Grant what the bot needs").state is State.WRONG
