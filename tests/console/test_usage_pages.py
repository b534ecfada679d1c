"""The pages of an organization's usage: exact, fast, and only for users who may see them."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from django.contrib.staticfiles import finders
from django.db import connection
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing import organizations
from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.models import Account, DecisionRecord, UsageEvent
from coding_tasks import api_tasks
from coding_tasks.api_tasks import NewTask
from coding_tasks.models import CodingTask, Repository
from console.report_permissions import ORGANIZATION_USAGE
from projects.models import SlackName, SlackWorkspace, User
from quota.resources import AI_CREDITS, POSTHOG_CODE_CREDITS
from tests.billing.world import CREDIT, book, usage_event

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_client")]

USAGE = "admin:projects_organization_usage"
BACKTEST = "admin:projects_organization_backtest"
VENDOR = Path(finders.find("console/vendor/chart.js/README.md")).parent


@pytest.fixture
def project():
    return organizations.create_project(organizations.create_organization("Acme"), "Bot")


def page(name, organization, **query):
    """Return the address of a page."""
    return reverse(name, args=[organization.pk], query=query)


def text_of(answer):
    """Return a page's text without its markup."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.content.decode()))


class TestAMonth:
    """These tests share one busy month, because it takes long to create."""

    def test_it_shows_what_was_used_by_whom_and_when_credits_run_out(
        self, admin_client, busy_month
    ):
        answer = admin_client.get(page(USAGE, busy_month.acme))
        report, text = answer.context["report"], text_of(answer)

        events = UsageEvent.objects.filter(
            account__organization=busy_month.acme,
            occurred_at__gte=datetime(2026, 11, 1, tzinfo=UTC),
        )
        in_ledger = events.aggregate(micro=Sum("credits_micro"))["micro"]
        assert report.usage.used.credits_micro == in_ledger
        for ranking in (report.by_user, report.by_thread, report.by_model):
            assert ranking.total.credits_micro == in_ledger
            top = sum(row.used.credits_micro for row in ranking.top)
            assert top + ranking.others_used.credits_micro == in_ledger
        assert len(report.usage.days) == 30
        [(burning, _)] = report.grants
        assert burning.burned == in_ledger - 1000 * CREDIT
        assert report.state.remaining_micro == burning.left
        assert "about 25 November" in text
        assert "end of the quarter" in text
        assert "No project of Acme Robotics is refused now." in text

        link = re.search(r'href="(/admin/threads/\d[^"]+)"', answer.content.decode())[1]
        assert admin_client.get(link).status_code == 200

        october = admin_client.get(
            page(USAGE, busy_month.acme, period=report.periods[1].start.isoformat())
        )
        assert october.context["report"].usage.period.start == datetime(2026, 10, 1, tzinfo=UTC)
        assert october.context["report"].forecast is None
        assert "Credits run out" not in text_of(october)

        limited = admin_client.get(page(USAGE, busy_month.globex))
        text = text_of(limited)
        assert "used up since 12 Nov 2026 17:00 UTC" in text
        assert (
            "12 Nov 2026 17:00 UTC 1 Dec 2026 00:00 UTC the limit and all top-ups are used up"
            in text
        )
        decision = limited.context["report"].decision
        assert decision.state == "limited"
        why = reverse("admin:billing_decisionrecord_change", args=[decision.pk])
        assert why in limited.content.decode()
        assert "left, with top-ups: 0.00" in text_of(admin_client.get(why))

        assert "Nothing was used in this period yet" in text_of(
            admin_client.get(page(USAGE, busy_month.initech))
        )

    def test_a_backtest_counts_what_came_after_the_limit(self, admin_client, busy_month):
        answer = admin_client.get(page(BACKTEST, busy_month.acme, limit="600"))
        report = answer.context["report"]
        [account] = Account.objects.filter(organization=busy_month.acme, resource=AI_CREDITS)
        used, refused = 0, []
        for event in UsageEvent.objects.filter(
            account=account, occurred_at__lt=datetime(2026, 11, 1, tzinfo=UTC)
        ).order_by("occurred_at"):
            if used < 600 * CREDIT:
                used += event.credits_micro
                last = event.occurred_at
            elif event.occurred_at > last:
                refused.append(event)
            else:
                used += event.credits_micro

        assert report.result.reached_at == last
        assert report.refused.events == len(refused)
        assert report.refused.credits_micro == sum(event.credits_micro for event in refused)
        assert report.admitted.credits_micro == used
        assert report.users == len({event.distinct_id for event in refused})
        runs = {event.task_run_id for event in refused if event.task_run_id}
        assert report.threads == len(runs)
        assert f"of {report.usage.used.events} generations" in text_of(answer)


def test_the_smallest_amount_is_not_shown_as_zero(admin_client, project):
    book(usage_event(project, "0.00000001"))
    answer = admin_client.get(page(USAGE, project.organization))

    assert "<0.01" in answer.content.decode().replace("&lt;", "<")
    assert 'title="0.000001 credits"' in answer.content.decode()
    assert answer.context["charts"]["chart-so-far"]["datasets"][0]["shown"][-1] == "<0.01"


def test_each_bucket_has_its_page(admin_client, project):
    book(usage_event(project, properties={"ai_product": "posthog_code"}))
    code = admin_client.get(page(USAGE, project.organization, resource=POSTHOG_CODE_CREDITS))

    assert code.context["report"].usage.used.credits_micro == 10 * CREDIT
    assert (
        not admin_client.get(page(USAGE, project.organization)).context["report"].usage.used.events
    )
    assert admin_client.get(page(USAGE, project.organization, resource="x")).status_code == 404


def test_a_soft_limit_and_no_limit_are_distinguished(admin_client, project):
    book(usage_event(project))
    assert "Limit of the period none unlimited" in text_of(
        admin_client.get(page(USAGE, project.organization))
    )
    set_limit(project.organization, AI_CREDITS, 5 * CREDIT, mode="soft")
    text = text_of(admin_client.get(page(USAGE, project.organization)))
    assert "soft: warns, never refuses" in text
    assert "Limited now No project of Acme is refused" in text


def test_a_limit_far_above_the_usage_does_not_flatten_the_chart(admin_client, project):
    book(usage_event(project))
    set_limit(project.organization, AI_CREDITS, 10_000 * CREDIT)
    answer = admin_client.get(page(USAGE, project.organization))

    labels = [each["label"] for each in answer.context["charts"]["chart-so-far"]["datasets"]]
    assert labels == ["Slack bot"]
    assert "The limit of 10,000.00 is too far above the usage to be drawn." in text_of(answer)


def test_a_block_set_by_hand_is_shown_as_such(admin_client, project, redis_client):
    from quota.models import SetMember

    SetMember.objects.create(
        resource=AI_CREDITS,
        token=project.api_token,
        origin="by_hand",
        organization=project.organization,
        project=project,
        limited_until=int((datetime.now(UTC) + timedelta(days=1)).timestamp()),
        changed_at=datetime.now(UTC),
    )
    text = text_of(admin_client.get(page(USAGE, project.organization)))
    assert "set by hand in Redis, not decided by billing" in text


def test_a_name_is_text_and_never_markup(admin_client, project):
    project.organization.name = "<script>alert(1)</script>"
    project.organization.save()
    book(usage_event(project, properties={"$ai_model": "</script><script>alert(2)</script>"}))
    for name in (USAGE, BACKTEST):
        answer = admin_client.get(page(name, project.organization, limit="1"))
        assert "<script>alert" not in answer.content.decode()
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("period", ["", "nonsense", "0001-01-01", "9999-12-31T00:00:00+00:00"])
@pytest.mark.parametrize("name", [USAGE, BACKTEST])
def test_an_invalid_period_shows_the_default_one(admin_client, project, name, period):
    assert admin_client.get(page(name, project.organization, period=period)).status_code == 200


@pytest.mark.parametrize("limit", ["", "-1", "many", "1e9", "9" * 30])
def test_an_invalid_limit_is_refused_with_an_explanation(admin_client, project, limit):
    answer = admin_client.get(page(BACKTEST, project.organization, limit=limit))
    assert answer.context["report"] is None
    assert answer.context["form"].errors


@pytest.mark.parametrize("name", [USAGE, BACKTEST])
class TestWhoMay:
    def test_anonymous_users_are_asked_to_log_in(self, client, project, name):
        answer = client.get(page(name, project.organization))
        assert (answer.status_code, "/admin/login/" in answer["Location"]) == (302, True)

    def test_a_member_outside_the_staff_sees_nothing(self, client, project, name):
        member = User.objects.create_user("member")
        project.organization.members.add(member)
        client.force_login(member)
        assert client.get(page(name, project.organization)).status_code == 302

    def test_staff_needs_every_permission(self, client, project, name):
        reader = User.objects.create_user("reader", is_staff=True)
        client.force_login(reader)
        for permission in ORGANIZATION_USAGE:
            assert client.get(page(name, project.organization)).status_code == 403
            codename = permission.partition(".")[2]
            reader.user_permissions.add(Permission.objects.get(codename=codename))
        answer = client.get(page(name, project.organization))
        assert answer.status_code == 200
        assert "Top up" not in answer.content.decode()
        assert "audit trail" not in answer.content.decode()

    def test_an_unknown_organization_is_not_found(self, admin_client, project, name):
        unknown = reverse(name, args=["00000000-0000-4000-8000-000000000000"])
        assert admin_client.get(unknown).status_code == 404


def test_the_page_costs_the_same_number_of_queries_however_much_was_used(
    admin_client, django_assert_num_queries, project
):
    where = page(USAGE, project.organization)

    def use(number):
        run = f"00000000-0000-4000-8000-{number:012}"
        event = usage_event(project, distinct_id=f"slack:T1:U{number}")
        event["properties"] |= {"task_run_id": run, "$ai_model": f"model-{number}"}
        book(event)
        grant_credits(project.organization, AI_CREDITS, CREDIT)
        organizations.create_project(project.organization, f"Project {number}")

    set_limit(project.organization, AI_CREDITS, 0)
    for number in range(2):
        use(number)
    admin_client.get(where)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(where)
    for number in range(2, 15):
        use(number)
    with django_assert_num_queries(len(few)):
        admin_client.get(where)


def test_the_admins_lists_link_to_it(admin_client, project):
    where = page(USAGE, project.organization)
    for each in (
        reverse("admin:projects_organization_changelist"),
        reverse("admin:projects_organization_change", args=[project.organization_id]),
    ):
        assert where in admin_client.get(each).content.decode()


def test_the_top_up_form_is_prefilled_with_the_account_of_the_page(admin_client, project):
    html = admin_client.get(page(USAGE, project.organization)).content.decode()
    form = re.search(r'href="([^"]*creditgrant/add[^"]*)"', html)[1]
    [account] = Account.objects.filter(organization=project.organization, resource=AI_CREDITS)
    assert f'<option value="{account.pk}" selected>' in admin_client.get(form).content.decode()


def test_the_chart_library_is_the_published_file():
    noted = re.findall(r"^ +([0-9a-f]{64})  (\S+)$", (VENDOR / "README.md").read_text(), re.M)
    assert len(noted) == 2
    for digest, name in noted:
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest


def test_a_task_over_the_api_is_in_no_thread(admin_client, project):
    repository = Repository.objects.create(
        project=project, full_name="acme/shop", clone_url="https://example.com/shop.git"
    )
    run = api_tasks.create(NewTask(repository, CodingTask.Origin.API, None, "Explain it"))
    properties = {"task_run_id": str(run.pk), "ai_product": "posthog_code"}
    book(usage_event(project, "0.10", properties=properties))
    url = page(USAGE, project.organization, resource=POSTHOG_CODE_CREDITS)
    [row] = admin_client.get(url).context["threads"]
    assert (row.label.name, row.label.link) == ("In no thread", "")


def test_a_limit_in_another_zone_shows_its_periods_and_resets_there(admin_client, project, clock):
    clock.now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    set_limit(project.organization, AI_CREDITS, 12 * CREDIT, time_zone="Europe/Berlin")
    book(usage_event(project, at=clock.now))
    text = text_of(admin_client.get(page(USAGE, project.organization)))

    assert "Period (Europe/Berlin)" in text
    assert "resets 1 Dec 2026 00:00 CET" in text
    assert "23 Nov 2026 13:00 CET 1 Dec 2026 00:00 CET the limit and all" in text
    decision = DecisionRecord.objects.get(state="limited")
    shown = admin_client.get(reverse("admin:billing_decisionrecord_change", args=[decision.pk]))
    assert "refused until: 1 Dec 2026 00:00 CET" in text_of(shown)
    overview = text_of(admin_client.get(reverse("admin:index")))
    assert "1 Dec 2026 00:00 CET" in overview


def test_people_are_named_once_slack_has_named_them(admin_client, project):
    workspace = SlackWorkspace.objects.create(
        project=project, team_id="T1", name="Acme Slack", bot_user_id="UB", bot_token="xoxb-1"
    )
    book(usage_event(project))
    assert "U1 Acme Slack 1 12.00" in text_of(admin_client.get(page(USAGE, project.organization)))
    assert SlackName.objects.get().is_due

    SlackName.objects.update(name="Ada & Co", is_due=False, looked_up_at=datetime.now(UTC))
    text = text_of(admin_client.get(page(USAGE, project.organization)))
    assert "Ada &amp; Co U1 in Acme Slack 1 12.00 $0.12 100 %" in text
    assert workspace.name in text
