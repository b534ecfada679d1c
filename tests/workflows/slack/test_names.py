"""Names of Slack's users and channels: asked for by pages, looked up by a task, erased for good."""

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from projects.models import Organization, Project, SlackName, SlackWorkspace
from projects.slack.names import SlackId, names_of
from tests.fakes import FakeSlack
from tests.stopwatch import Stopwatch
from workflows import tasks
from workflows.slack.names import PER_WORKSPACE

pytestmark = pytest.mark.django_db


@pytest.fixture
def slack(_slack: FakeSlack, settings) -> FakeSlack:
    _slack.reset()
    settings.SLACK_API_URL = _slack.api_url
    return _slack


@pytest.fixture
def workspace(slack) -> SlackWorkspace:
    organization = Organization.objects.create(name="Acme")
    project = Project.objects.create(organization=organization, name="Main")
    return SlackWorkspace.objects.create(
        project=project, team_id="T1", bot_user_id="UBOT", bot_token="xoxb-demo"
    )


def lookups(slack: FakeSlack) -> list[str]:
    return [call.method for call in slack.calls() if call.method.endswith(".info")]


def names(workspace, *ids: str) -> dict[str, str]:
    """Return the names that a page shows."""
    found = names_of(SlackId(workspace.pk, each) for each in ids)
    return {key.slack_id: name for key, name in found.items()}


def test_a_page_shows_the_id_until_the_name_is_known(workspace, slack):
    assert names(workspace, "U2", "C1") == {}
    assert lookups(slack) == []
    tasks.look_up_slack_names()
    known = names(workspace, "U2", "C1")
    assert known["C1"] == "#general"
    assert known["U2"] not in ("", "U2")
    assert sorted(lookups(slack)) == ["conversations.info", "users.info"]


@pytest.mark.case("U12")
def test_ten_thousand_channels_are_looked_up_little_by_little(workspace, slack):
    ids = [f"C{number:05}" for number in range(10_000)]
    with Stopwatch() as waited:
        assert names(workspace, *ids) == {}
        assert names(workspace, *ids) == {}
    assert waited.seconds < 3
    assert SlackName.objects.count() == 10_000
    for sweeps in (1, 2):
        tasks.look_up_slack_names()
        assert len(lookups(slack)) == sweeps * PER_WORKSPACE


@pytest.mark.case("U9")
def test_a_name_is_looked_up_at_most_once_a_day(workspace, slack):
    names(workspace, "U2")
    for _ in range(3):
        tasks.look_up_slack_names()
        names(workspace, "U2")
    assert lookups(slack) == ["users.info"]

    SlackName.objects.update(name="old", looked_up_at=timezone.now() - timedelta(days=1, seconds=1))
    assert names(workspace, "U2") == {"U2": "old"}
    tasks.look_up_slack_names()
    assert names(workspace, "U2")["U2"] != "old"
    assert lookups(slack) == ["users.info"] * 2


@pytest.mark.parametrize("error", ["user_not_found", "missing_scope"])
def test_somebody_whom_slack_does_not_know_is_asked_for_again_the_next_day(workspace, slack, error):
    slack.fail_next("users.info", error)
    names(workspace, "U2")
    for _ in range(2):
        tasks.look_up_slack_names()
        assert names(workspace, "U2") == {}
    assert lookups(slack) == ["users.info"]


def test_a_rate_limit_is_kept(workspace, slack):
    slack.fail_next("users.info", "ratelimited", retry_after=30)
    names(workspace, "U2", "U3")
    for _ in range(2):
        tasks.look_up_slack_names()
    assert lookups(slack) == ["users.info"]
    assert SlackName.objects.filter(is_due=True).count() == 2


def test_a_direct_message_has_no_name(workspace):
    assert names(workspace, "D1") == {}
    assert not SlackName.objects.exists()


def test_an_erased_name_stays_erased(workspace, slack):
    names(workspace, "U2", "U3")
    tasks.look_up_slack_names()
    call_command("erase_slack_user", "T1", "U2")
    SlackName.objects.update(looked_up_at=timezone.now() - timedelta(days=2))
    assert "U2" not in names(workspace, "U2", "U3")
    tasks.look_up_slack_names()
    assert "U2" not in names(workspace, "U2", "U3")
    assert SlackName.objects.get(slack_id="U2").name == ""
    assert lookups(slack).count("users.info") == 3


def test_an_erased_user_without_a_name_is_not_looked_up(workspace, slack):
    call_command("erase_slack_user", "T1", "U2")
    assert names(workspace, "U2") == {}
    tasks.look_up_slack_names()
    assert lookups(slack) == []
