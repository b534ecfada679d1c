"""All that an organization used, by user, model and channel: on pages, and as CSV files."""

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing import organizations
from billing.allowances.limits import set_limit
from coding_tasks.models import CodingTask, Repository, TaskRun
from console.usage.tables import ROWS, TABLES
from projects.models import SlackName, SlackWorkspace, User
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, book, usage_event
from tests.console.test_usage_pages import text_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_client")]

NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)


@pytest.fixture
def project(clock):
    clock.now = NOW
    return organizations.create_project(organizations.create_organization("Acme"), "Bot")


@pytest.fixture
def workspace(project):
    return SlackWorkspace.objects.create(
        project=project, team_id="T1", name="Acme Slack", bot_user_id="UB", bot_token="xoxb-1"
    )


def page(organization, table, *, as_csv=False, **query):
    name = "admin:projects_organization_table" + ("_csv" if as_csv else "")
    return reverse(name, args=[organization.pk, table], query=query)


def csv_rows(answer) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    assert answer.streaming
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
    text = b"".join(answer.streaming_content).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def use(project, cost="0.10", user="slack:T1:U1", model="small", at=NOW, run=None):
    event = usage_event(project, cost, at=at, distinct_id=user)
    event["properties"] |= {"$ai_model": model, "task_run_id": str(run or uuid4())}
    book(event)


def test_users_by_model_add_up_and_name_people(admin_client, project, workspace):
    SlackName.objects.create(workspace=workspace, slack_id="U1", name="Ada", is_due=False)
    for user, model, cost in (("U1", "big", "1"), ("U1", "small", "0.5"), ("U2", "big", "0.25")):
        use(project, cost, f"slack:T1:{user}", model)
    text = text_of(admin_client.get(page(project.organization, "users-models")))

    assert "Ada U1 in Acme Slack big 1 120.00 $1.20 57 %" in text
    assert "Ada U1 in Acme Slack small 1 60.00 $0.60 29 %" in text
    assert "U2 Acme Slack big 1 30.00 $0.30 14 %" in text
    assert "All 3 3 210.00 $2.10 100 %" in text
    assert "210.00 credits are $2.10, of which the provider gets $1.75." in text


def test_channels_are_those_of_the_threads(admin_client, project, workspace):
    SlackName.objects.create(workspace=workspace, slack_id="C1", name="#general", is_due=False)
    repository = Repository.objects.create(project=project, full_name="acme/shop", clone_url="x")
    for channel in ("C1", "C2"):
        task = CodingTask.objects.create(
            project=project,
            repository=repository,
            workspace=workspace,
            channel_id=channel,
            thread_ts="1.1",
            title="t",
            origin=CodingTask.Origin.SLACK,
            workflow_id=channel,
        )
        run = TaskRun.objects.create(task=task, request="r")
        use(project, run=run.pk)
    use(project, "1")
    found = csv_rows(admin_client.get(page(project.organization, "channels", as_csv=True)))

    assert [(row["channel"], row["channel name"], row["credits"]) for row in found] == [
        ("", "", "120"),
        ("C1", "#general", "12"),
        ("C2", "", "12"),
    ]


def test_pages_show_everybody_once(admin_client, project):
    for number in range(ROWS + 5):
        use(project, f"0.{number + 1:04}", f"user {number:03}")
    seen = []
    for number in (1, 2):
        answer = admin_client.get(page(project.organization, "users", page=str(number)))
        seen += [row.labels[0].name for row in answer.context["rows"]]
    assert sorted(seen) == [f"user {number:03}" for number in range(ROWS + 5)]
    assert seen[0] == f"user {ROWS + 4:03}"
    for number in ("0", "3", "nonsense", "9" * 30):
        answer = admin_client.get(page(project.organization, "users", page=number))
        assert answer.status_code == 200


def test_the_file_has_all_rows_with_all_digits(admin_client, project):
    for number in range(ROWS + 5):
        use(project, "0.00000001", f"user {number}")
    found = csv_rows(admin_client.get(page(project.organization, "users", as_csv=True)))

    assert len(found) == ROWS + 5
    assert {row["credits"] for row in found} == {"0.000001"}
    assert {Decimal(row["dollars"]) for row in found} == {Decimal("0.00000001")}


def test_a_name_is_never_a_formula_in_the_file(admin_client, project):
    use(project, model="=HYPERLINK(1)")
    [row] = csv_rows(admin_client.get(page(project.organization, "models", as_csv=True)))
    assert row["model"] == "'=HYPERLINK(1)"


class TestChoosingTheTime:
    @pytest.fixture(autouse=True)
    def usage(self, project, clock):
        for month, day, hour, cost in ((10, 31, 23, "1"), (11, 1, 0, "2"), (11, 20, 12, "4")):
            clock.now = datetime(2026, month, day, hour, 30, tzinfo=UTC)
            use(project, cost, at=clock.now)
        clock.now = NOW

    def credits(self, client, project, **query):
        answer = client.get(page(project.organization, "models", **query))
        return answer.context["total"].credits_micro // CREDIT

    def test_it_is_this_period_the_last_one_or_two_dates(self, admin_client, project):
        assert self.credits(admin_client, project) == 720
        assert self.credits(admin_client, project, period="this") == 720
        assert self.credits(admin_client, project, period="last") == 120
        assert self.credits(admin_client, project, since="2026-10-31", until="2026-11-01") == 360
        assert self.credits(admin_client, project, since="2026-11-20", until="2026-11-20") == 480

    def test_dates_are_in_the_zone_of_the_limit(self, admin_client, project):
        set_limit(project.organization, AI_CREDITS, 5000 * CREDIT, time_zone="Europe/Berlin")
        assert self.credits(admin_client, project, since="2026-11-01", until="2026-11-01") == 360
        text = text_of(
            admin_client.get(
                page(project.organization, "models", since="2026-11-01", until="2026-11-01")
            )
        )
        assert "From 1 Nov 2026 00:00 CET to 2 Nov 2026 00:00 CET." in text

    @pytest.mark.parametrize(
        ("since", "until", "problem"),
        [
            ("2026-11-02", "2026-11-01", "The last day is before the first."),
            ("2026-11-02", "", "Enter two dates"),
            ("yesterday", "2026-11-01", "Enter two dates"),
            ("2020-01-01", "2026-11-01", "Choose at most 366 days."),
            ("0001-01-01", "0001-01-01", "Enter two dates"),
        ],
    )
    def test_impossible_dates_are_explained(self, admin_client, project, since, until, problem):
        answer = admin_client.get(page(project.organization, "models", since=since, until=until))
        assert problem in text_of(answer)
        assert answer.context["total"].credits_micro == 720 * CREDIT

    def test_the_link_of_a_page_shows_the_same_next_month(self, admin_client, project, clock):
        query = admin_client.get(page(project.organization, "models", period="this")).context[
            "query"
        ]
        clock.now = NOW + timedelta(days=9)
        address = f"{page(project.organization, 'models')}?{query}"
        assert admin_client.get(address).context["total"].credits_micro == 720 * CREDIT
        assert self.credits(admin_client, project, period="this") == 0

    def test_days_are_in_order_with_their_products(self, admin_client, project):
        found = csv_rows(
            admin_client.get(
                page(
                    project.organization,
                    "days",
                    as_csv=True,
                    since="2026-10-01",
                    until="2026-11-30",
                )
            )
        )
        assert [(row["day"], row["product"], row["credits"]) for row in found] == [
            ("2026-10-31", "slack_app", "120"),
            ("2026-11-01", "slack_app", "240"),
            ("2026-11-20", "slack_app", "480"),
        ]


@pytest.mark.parametrize("as_csv", [False, True])
@pytest.mark.parametrize("table", TABLES)
class TestWhoMay:
    def test_strangers_are_asked_to_log_in(self, client, project, table, as_csv):
        assert client.get(page(project.organization, table, as_csv=as_csv)).status_code == 302
        client.force_login(User.objects.create_user("member"))
        assert client.get(page(project.organization, table, as_csv=as_csv)).status_code == 302

    def test_staff_needs_every_permission(self, client, project, table, as_csv):
        staff = User.objects.create_user("staff", is_staff=True)
        client.force_login(staff)
        for permission in dict.fromkeys(TABLES[table].permissions):
            assert client.get(page(project.organization, table, as_csv=as_csv)).status_code == 403
            codename = permission.partition(".")[2]
            staff.user_permissions.add(Permission.objects.get(codename=codename))
        assert client.get(page(project.organization, table, as_csv=as_csv)).status_code == 200


@pytest.mark.parametrize("table", TABLES)
def test_a_table_costs_the_same_number_of_queries_however_much_was_used(
    admin_client, django_assert_num_queries, project, workspace, table
):
    where = page(project.organization, table)
    for number in range(2):
        use(project, user=f"slack:T1:U{number}", model=f"model {number}")
    admin_client.get(where)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(where)
    queries = len(few)
    for number in range(2, 15):
        use(project, user=f"slack:T1:U{number}", model=f"model {number}")
    admin_client.get(where)  # notes the new names
    with django_assert_num_queries(queries):
        admin_client.get(where)


def test_an_unknown_table_is_not_found(admin_client, project):
    assert admin_client.get(page(project.organization, "nonsense")).status_code == 404
