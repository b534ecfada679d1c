"""The end of an installation, reported in any order and several times."""

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from projects.models import SlackWorkspace
from slack_bot import installations
from slack_bot.events import Installation
from slack_bot.installations import Grant, ServesAnotherProject
from tests.slack_bot.conftest import captured
from workflows import tasks
from workflows.models import Mention, Notice

ENDS = ["app_uninstalled", "tokens_revoked"]


@pytest.mark.case("S29")
def test_uninstalling_is_handled_once_in_any_order_of_events(webhook, workspace):
    seen = set()
    for case in (*ENDS, *reversed(ENDS)):
        assert webhook.deliver(captured(case)).status_code == 200
        workspace.refresh_from_db()
        assert not workspace.is_active
        seen.add(workspace.uninstalled_at)
    assert len(seen) == 1


@pytest.mark.case("S29")
@pytest.mark.parametrize("case", ENDS)
def test_slack_is_not_called_after_the_end(webhook, workspace, out_of_credits, case):
    webhook.mention()
    webhook.deliver(captured(case))
    webhook.mention()
    tasks.deliver_pending_notices()
    assert webhook.slack.calls() == []
    assert Notice.objects.get().state == "given_up"
    assert Mention.objects.count() == 1


def test_a_revoked_user_token_ends_nothing(webhook, workspace):
    webhook.deliver(captured("tokens_of_a_user_revoked"))
    workspace.refresh_from_db()
    assert workspace.is_active


def test_another_workspace_is_not_ended(webhook, workspace, stranger):
    theirs = SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    webhook.deliver(captured("app_uninstalled"))
    theirs.refresh_from_db()
    assert theirs.is_active


def test_uninstalling_an_org_wide_installation_ends_only_that_one(webhook, workspace):
    org_wide = SlackWorkspace.objects.create(
        project=workspace.project, enterprise_id="E1", bot_user_id="UBOT", bot_token="xoxb-org"
    )
    payload = captured("app_uninstalled")
    payload["authorizations"][0] |= {
        "team_id": None,
        "enterprise_id": "E1",
        "is_enterprise_install": True,
    }
    webhook.deliver(payload)
    states = [SlackWorkspace.objects.get(pk=each.pk).is_active for each in (workspace, org_wide)]
    assert states == [True, False]


def test_a_redelivered_uninstall_does_not_end_a_new_installation(webhook, workspace):
    payload = captured("app_uninstalled")
    payload["event_time"] = int(time.time()) - 60
    SlackWorkspace.objects.update(installed_at=timezone.now() - timedelta(days=1))
    webhook.deliver(payload)
    workspace.refresh_from_db()
    assert not workspace.is_active
    installations.connect(workspace.project, grant())
    webhook.deliver(payload)
    workspace.refresh_from_db()
    assert workspace.is_active


def test_an_uninstall_just_after_the_installation_counts(webhook, workspace):
    payload = captured("app_uninstalled")
    payload["event_time"] = int(time.time())
    webhook.deliver(payload)
    workspace.refresh_from_db()
    assert not workspace.is_active


@pytest.mark.parametrize("moment", [10**30, -(10**30), "now", None, True, 1.5, []])
def test_an_uninstall_without_a_time_counts(webhook, workspace, moment):
    payload = captured("app_uninstalled")
    payload["event_time"] = moment
    webhook.deliver(payload)
    workspace.refresh_from_db()
    assert not workspace.is_active


# --- Connecting ----------------------------------------------------------------------------------
def grant(**fields) -> Grant:
    return Grant(
        **{
            "installation": Installation("T1", "", is_org_wide=False),
            "name": "Acme",
            "app_id": "A1",
            "bot_user_id": "UBOT",
            "bot_token": "xoxb-new",
        }
        | fields
    )


def test_installing_again_renews_the_token_and_keeps_the_settings(workspace):
    SlackWorkspace.objects.update(access="members", is_active=False, uninstalled_at=timezone.now())
    again = installations.connect(workspace.project, grant())
    again.refresh_from_db()
    assert again.pk == workspace.pk
    assert (again.bot_token, again.access) == ("xoxb-new", "members")
    assert (again.is_active, again.uninstalled_at) == (True, None)


@pytest.mark.parametrize("is_active", [True, False])
def test_a_workspace_is_not_silently_moved_to_another_project(workspace, stranger, is_active):
    SlackWorkspace.objects.update(is_active=is_active)
    with pytest.raises(ServesAnotherProject):
        installations.connect(stranger, grant())
    workspace.refresh_from_db()
    assert workspace.bot_token == "xoxb-demo"


def test_an_org_wide_installation_has_no_team(project):
    made = installations.connect(
        project, grant(installation=Installation("", "E1", is_org_wide=True))
    )
    assert (made.team_id, made.enterprise_id) == ("", "E1")
    assert installations.find(Installation("", "E1", is_org_wide=True)) == made
    assert installations.find(Installation("", "", is_org_wide=False)) is None
