"""The admin's first page: the numbers, who sees them, and that they cost few queries."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing import organizations, tasks
from billing.allowances.caps import set_cap
from billing.allowances.limits import set_limit
from billing.models import Account, UsageTotal
from coding_tasks.agent_worker.exchange import Exchange
from console.overview.records import GROUPS
from projects.models import Project, RotatingToken, SlackWorkspace, User
from projects.slack import rotating_tokens
from quota.models import SetMember
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, account_of, book, usage_event
from tests.console.admin_pages import ADMIN_PAGES
from workflows.models import CreditRequest, FollowUp, Mention, Notice

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_client")]

INDEX = reverse("admin:index")
RECORDS = reverse("admin:records")
NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _now(clock):
    clock.now = NOW


@pytest.fixture
def project() -> Project:
    return organizations.create_project(organizations.create_organization("Acme"), "Bot")


@pytest.fixture
def first_page(admin_client):
    """Return a function that gets the first page."""

    def _first_page():
        answer = admin_client.get(INDEX)
        assert answer.status_code == 200
        return answer

    return _first_page


def mention(project: Project, number: int = 1, **fields) -> Mention:
    workspace, _ = SlackWorkspace.objects.get_or_create(
        project=project,
        team_id=f"T{project.pk}",
        defaults={"bot_user_id": "UBOT", "bot_token": "xoxb-1"},
    )
    made = {"state": Mention.State.REFUSED, "outcome": "out of credits: limit_reached"} | fields
    return Mention.objects.create(
        workspace=workspace,
        team_id="T1",
        channel_id="C1",
        ts=f"{number}.1",
        thread_ts=f"{number}.1",
        user_id="U1",
        text="please",
        **made,
    )


class TestLimited:
    def test_it_says_who_is_limited_until_when_and_why(self, first_page, project):
        set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
        book(usage_event(project, at=NOW))
        page = first_page().content.decode()
        assert "the limit and all top-ups are used up" in page
        assert "1 Dec 2026 00:00" in page
        assert "12.00</span> of 12.00" in page
        form = reverse("admin:billing_creditgrant_add")
        assert f'href="{form}?account={account_of(project.organization).pk}">Top up' in page

    def test_it_says_who_is_close(self, first_page, project):
        set_limit(project.organization, AI_CREDITS, 15 * CREDIT)
        book(usage_event(project, at=NOW))
        [row] = first_page().context["limited"].rows
        assert (row.state, row.percent, row.until) == (
            "warning",
            80,
            datetime(2026, 12, 1, tzinfo=UTC),
        )

    def test_it_leads_to_the_cap_that_was_reached(self, admin_client, first_page, project):
        set_cap(project.organization, AI_CREDITS, "project", 0, subject=str(project.pk))
        set_cap(project.organization, AI_CREDITS, "user", CREDIT)
        book(usage_event(project, at=NOW))
        rows = first_page().context["limited"].rows
        assert {row.who for row in rows} == {"project Bot", "user slack:T1:U1"}
        forms = [admin_client.get(row.action).content.decode() for row in rows]
        assert all('value="project" selected' in f or 'value="user" selected' in f for f in forms)
        assert any('value="slack:T1:U1"' in form for form in forms)

    def test_a_block_set_by_hand_is_shown_without_a_top_up(self, first_page, project):
        SetMember.objects.create(
            resource=AI_CREDITS,
            token=project.api_token,
            project=project,
            organization=project.organization,
            origin=SetMember.Origin.BY_HAND,
            limited_until=int(NOW.timestamp()) + 60,
            changed_at=NOW,
        )
        [row] = first_page().context["limited"].rows
        assert (row.why, row.action) == ("set by hand in Redis, not decided by billing", "")

    def test_an_organization_that_is_switched_off_comes_last(self, first_page, project):
        off = organizations.create_organization("Aaa")
        organizations.set_organization_active(off, False)
        set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
        book(usage_event(project, at=NOW))
        rows = first_page().context["limited"].rows
        assert [str(row.organization) for row in rows] == ["Acme", "Aaa", "Aaa"]
        assert rows[1].action == ""

    def test_it_says_how_many_more_there_are(self, first_page):
        for number in range(17):
            set_limit(organizations.create_organization(f"O{number}"), AI_CREDITS, 0)
        answer = first_page()
        assert len(answer.context["limited"].rows) == 10
        assert "7 more accounts are limited" in answer.content.decode()


class TestUsage:
    def test_it_compares_the_whole_days_with_those_of_the_last_month(self, first_page, project):
        book(
            usage_event(project, "0.30", at=NOW - timedelta(days=1)),
            usage_event(project, "0.20", at=NOW - timedelta(days=31)),  # 23 October: not compared
            usage_event(project, "0.20", at=NOW - timedelta(days=32)),
            usage_event(project, "9.00", at=NOW),
        )
        answer = first_page()
        spent = answer.context["spent"]
        assert spent.this.used.credits_micro == (36 + 1080) * CREDIT
        assert spent.today.credits_micro == 1080 * CREDIT
        assert spent.last.used.credits_micro == 48 * CREDIT
        assert spent.change == "50 % more than"
        chart = answer.context["charts"]["chart-spending"]
        assert [dataset["label"] for dataset in chart["datasets"]] == [
            "AI credits",
            "a month earlier",
        ]
        assert chart["datasets"][0]["credits"][21:23] == [36.0, 1080.0]
        assert chart["datasets"][1]["credits"][21:23] == [24.0, 24.0]

    def test_it_names_who_used_most(self, first_page, project):
        book(usage_event(project, at=NOW), usage_event(project, at=NOW, distinct_id="slack:T9:U9"))
        page = first_page().content.decode()
        usage = reverse("admin:projects_organization_usage", args=[project.organization_id])
        assert f'<a href="{usage}">Acme</a>' in page
        assert "U9" in page
        assert "claude-sonnet-4-5" in page

    @pytest.mark.parametrize("day", [1, 2, 31])
    def test_it_works_on_every_day_of_a_month(self, first_page, project, clock, day):
        clock.now = datetime(2026, 10, day, 0, 30, tzinfo=UTC)
        book(
            usage_event(project, at=clock.now),
            usage_event(project, at=clock.now - timedelta(days=31)),
        )
        spent = first_page().context["spent"]
        assert spent.this.used.credits_micro == 12 * CREDIT
        assert spent.last.month.month == 9

    def test_it_is_empty_without_usage(self, first_page, project):
        page = first_page().content.decode()
        assert "Nobody." in page
        assert "None." in page
        assert "Nothing." in page
        assert "<canvas" not in page


class TestConcerns:
    def sentences(self, first_page):
        return [concern.sentence for concern in first_page().context["concerns"]]

    def test_events_that_could_not_be_booked(self, first_page, project):
        book(usage_event(project, "NaN"), usage_event(project, "NaN"))
        [sentence] = self.sentences(first_page)
        assert sentence.startswith("2 usage events could not be booked, the oldest since 23 Nov")

    def test_totals_that_differ_from_the_ledger(self, first_page, project):
        book(usage_event(project, at=NOW))
        UsageTotal.objects.update(usage_micro=5)
        assert self.sentences(first_page) == ["The totals of 1 account differ from the ledger."]

    def test_decisions_that_are_overdue(self, first_page, project):
        Account.objects.filter(resource=AI_CREDITS).update(
            decide_again_at=NOW - timedelta(minutes=6)
        )
        assert self.sentences(first_page) == ["The decisions about 1 account are overdue."]

    def test_errors_of_providers(self, first_page, project, clock):
        clock.now = NOW - timedelta(hours=2)
        failed = {"$ai_is_error": True, "$ai_http_status": 529}
        book(usage_event(project, at=clock.now, properties=failed))
        clock.now = NOW
        assert self.sentences(first_page) == []
        book(usage_event(project, at=NOW, properties=failed), usage_event(project, at=NOW))
        assert self.sentences(first_page) == [
            "1 of 2 generations in the last hour ended with an error: 1 × anthropic 529."
        ]

    def test_messages_that_were_given_up_or_are_stuck(self, first_page, project):
        about = mention(project, state=Mention.State.RECEIVED)
        Mention.objects.update(received_at=NOW - timedelta(minutes=6))
        for key, state, error in (
            ("a", Notice.State.GIVEN_UP, "channel_not_found"),
            ("b", Notice.State.GIVEN_UP, "erased"),
            ("c", Notice.State.PENDING, ""),
        ):
            Notice.objects.create(
                key=key,
                kind=Notice.Kind.ANSWER,
                workspace=about.workspace,
                channel_id="C1",
                text="an answer",
                state=state,
                error=error,
                next_attempt_at=NOW - timedelta(minutes=6),
            )
        FollowUp.objects.create(
            workspace=about.workspace,
            channel_id="C1",
            ts="2.1",
            thread_ts="1.1",
            user_id="U1",
            text="and",
            addressed=True,
            workflow_id="w",
        )
        FollowUp.objects.update(received_at=NOW - timedelta(minutes=6))
        assert self.sentences(first_page) == [
            "1 message of the last 7 days could not be posted to Slack.",
            "1 message to Slack should have been sent by now.",
            "1 mention waited more than five minutes to start.",
            "1 follow-up waited more than five minutes for its workflow.",
        ]

    def test_bot_tokens_that_cannot_be_renewed(self, admin_client, first_page, project):
        workspace = mention(project).workspace
        rotating_tokens.keep(workspace, "xoxe-1-x", timedelta(hours=12), NOW)
        assert self.sentences(first_page) == []
        RotatingToken.objects.update(refresh_at=None, problem="invalid_refresh_token")
        [concern] = first_page().context["concerns"]
        assert "was not renewed (invalid_refresh_token)" in concern.sentence
        assert concern.advice == "Install the app again."
        page = admin_client.get(concern.link)
        assert "It cannot be renewed (invalid_refresh_token)" in page.content.decode()

    def test_requests_for_credits(self, first_page, project):
        CreditRequest.objects.create(mention=mention(project), suggested_micro=CREDIT)
        assert self.sentences(first_page) == ["1 request for credits waits for an answer in Slack."]

    def test_each_leads_to_a_page(self, admin_client, first_page, project):
        book(usage_event(project, "NaN"))
        for concern in first_page().context["concerns"]:
            assert admin_client.get(concern.link).status_code == 200


def test_it_lists_the_refused_mentions_of_today(first_page, project):
    mention(project)
    mention(project, 2)
    Mention.objects.filter(ts="2.1").update(received_at=NOW - timedelta(hours=15))
    answer = first_page()
    page = answer.content.decode()
    assert answer.context["refusals"]["count"] == 1
    assert "out of credits: the limit and all top-ups are used up" in page
    assert "limit_reached" not in page
    assert "please" not in page


def test_it_says_what_each_agent_worker_can_run(admin_client, settings, tmp_path):
    settings.AGENT_EXCHANGE_DIRECTORY = str(tmp_path)
    exchange = Exchange(tmp_path)
    assert (
        "No agent worker runs, so only the reading agent works."
        in admin_client.get(INDEX).content.decode()
    )
    exchange.put_report("good", {"sandbox": "", "agents": {"small": "", "codex": "No Codex here."}})
    exchange.put_report("bad", {"sandbox": "<no namespaces>", "agents": {"small": ""}})
    page = admin_client.get(INDEX).content.decode()
    assert "<strong>good</strong>: ready.</p>" in page
    assert "<li>No Codex here.</li>" in page
    assert "<strong>bad</strong>: no sandbox" in page
    assert "(&lt;no namespaces&gt;)" in page


def test_somebody_without_view_permissions_sees_neither_numbers_nor_links(client, project):
    set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
    book(usage_event(project, at=NOW), usage_event(project, "NaN"))
    mention(project)
    stranger = User.objects.create_user("stranger", is_staff=True)
    client.force_login(stranger)
    page = client.get(INDEX).content.decode()
    for hidden in ("Acme", "12.00", "<h2>", "/admin/billing/", "/admin/projects/", "<canvas"):
        assert hidden not in page
    records = client.get(RECORDS).content.decode()
    assert "/admin/billing/" not in records
    stranger.user_permissions.set(Permission.objects.filter(codename="view_setmember"))
    page = client.get(INDEX).content.decode()
    assert "project Bot" in page
    assert "Credits used this month" not in page
    assert "Mentions refused today" not in page
    assert "Top up" not in page


def test_it_asks_people_outside_the_staff_to_log_in(client, project):
    client.force_login(User.objects.create_user("member"))
    for page in (INDEX, RECORDS):
        assert client.get(page).status_code == 302


def test_it_loads_only_from_tollgate_itself(first_page):
    assert "default-src 'none'" in first_page()["Content-Security-Policy"]


def test_all_records_are_in_groups_that_a_person_would_name(admin_client):
    groups = admin_client.get(RECORDS).context["app_list"]
    assert [group["name"] for group in groups] == list(GROUPS)
    grouped = [label for labels in GROUPS.values() for label in labels]
    assert sorted(grouped) == sorted(page.model._meta.label_lower for page in ADMIN_PAGES)
    for group in groups:
        for entry in group["models"]:
            page = admin_client.get(entry["admin_url"])
            assert page.status_code == 200
            assert "coding_tasks</a>" not in page.content.decode().lower()


def test_the_number_of_queries_does_not_depend_on_how_much_there_is(
    admin_client, django_assert_num_queries
):
    def add(number):
        organization = organizations.create_organization(f"O{number}")
        project = organizations.create_project(organization, "P")
        mention(project, number)
        set_limit(organization, AI_CREDITS, 12 * CREDIT)
        set_cap(organization, AI_CREDITS, "user", CREDIT)
        set_cap(organization, AI_CREDITS, "project", CREDIT)
        book(
            usage_event(project, at=NOW, distinct_id=f"slack:T{project.pk}:U1"),
            usage_event(project, "NaN"),
        )

    for number in range(2):
        add(number)
    admin_client.get(INDEX)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(INDEX)
    queries = len(few)
    for number in range(2, 6):
        add(number)
    admin_client.get(INDEX)  # notes the new names
    with django_assert_num_queries(queries):
        admin_client.get(INDEX)
    tasks.sum_usage()
    assert queries < 50
