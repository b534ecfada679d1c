"""Billing's admin pages: forms, read-only pages, and decisions about quarantined events."""

import re
from collections import defaultdict
from datetime import timedelta
from itertools import chain, zip_longest
from urllib.parse import parse_qsl

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from billing.allowances.caps import set_cap
from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.models import (
    AuditEntry,
    CreditGrant,
    DecisionRecord,
    Limit,
    QuarantinedEvent,
    UsageEvent,
)
from billing.organizations import create_organization, create_project
from billing.reports.daily_usage import report_day
from projects.models import User
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, account_of, book, published, usage_event, used

pytestmark = pytest.mark.django_db
LISTS = [
    "account",
    "limit",
    "cap",
    "creditgrant",
    "usageevent",
    "quarantinedevent",
    "decisionrecord",
    "auditentry",
    "dailyusage",
    "thresholdnotice",
]


def page(name, *args):
    return reverse(f"admin:billing_{name}", args=args)


def populate(count):
    """Organizations with limits, grants, usage, decisions and a quarantined event."""
    for number in range(count):
        project = create_project(create_organization(f"Organization {number}"), "Main")
        set_limit(project.organization, AI_CREDITS, 12 * CREDIT, reason="a plan")
        grant_credits(project.organization, AI_CREDITS, CREDIT)
        set_cap(project.organization, AI_CREDITS, "user", CREDIT, reason="a share")
        book(usage_event(project), usage_event(project), usage_event(project, "NaN"))
    report_day(timezone.now().date())


def test_a_list_costs_the_same_number_of_queries_however_long_it_is(admin_client, subtests):
    def queries_of_each_list():
        counts = {}
        for name in LISTS:
            with CaptureQueriesContext(connection) as queries:
                assert admin_client.get(page(f"{name}_changelist")).status_code == 200
            counts[name] = len(queries)
        return counts

    populate(2)
    few = queries_of_each_list()
    for number in range(4):
        project = create_project(create_organization(f"More {number}"), "Main")
        set_limit(project.organization, AI_CREDITS, 0)
        grant_credits(project.organization, AI_CREDITS, 20 * CREDIT)
        book(usage_event(project), usage_event(project, "NaN"))
    report_day(timezone.now().date())

    for name, many in queries_of_each_list().items():
        with subtests.test(name):
            assert many <= few[name]


def test_a_list_can_be_searched_and_filtered(admin_client, subtests):
    populate(1)
    for name in LISTS:
        with subtests.test(name):
            found = admin_client.get(page(f"{name}_changelist"), {"q": "Organization"})
            assert found.status_code == 200
            # Each choice of every filter, in requests with one choice of each.
            choices = defaultdict(set)
            for query in re.findall(rb'href="\?([^"]+)"', found.content):
                parameters = parse_qsl(query.decode().replace("&amp;", "&"))
                choices[tuple(key for key, _ in parameters if key != "q")].add(tuple(parameters))
            assert len(choices) > 1
            for chosen in zip_longest(*choices.values(), fillvalue=()):
                answer = admin_client.get(page(f"{name}_changelist"), dict(chain(*chosen)))
                assert answer.status_code == 200


@pytest.mark.parametrize(
    "model", [UsageEvent, DecisionRecord, AuditEntry, QuarantinedEvent, Limit, CreditGrant]
)
def test_a_row_is_shown_and_cannot_be_changed_or_deleted(admin_client, model):
    populate(1)
    name, row = model._meta.model_name, model.objects.first()

    shown = admin_client.get(page(f"{name}_change", row.pk))

    assert shown.status_code == 200
    assert b'name="_save"' not in shown.content
    assert admin_client.post(page(f"{name}_change", row.pk), {}).status_code == 403
    assert admin_client.post(page(f"{name}_delete", row.pk), {"post": "yes"}).status_code == 403
    assert model.objects.filter(pk=row.pk).exists()


def test_the_page_of_an_account_says_where_it_stands_and_why(admin_client, project):
    set_limit(project.organization, AI_CREDITS, 12 * CREDIT, actor="ops", reason="trial plan")
    grant_credits(project.organization, AI_CREDITS, CREDIT // 2, reason="goodwill")
    book(usage_event(project), usage_event(project))
    account = account_of(project.organization)

    shown = admin_client.get(page("account_change", account.pk)).content.decode()

    for text in ("limit_reached", "24.00", "12.00 (hard)", "trial plan", "goodwill", "0.50"):
        assert text in shown
    record = DecisionRecord.objects.filter(account=account).first()
    assert page("decisionrecord_change", record.pk) in shown
    inputs = admin_client.get(page("decisionrecord_change", record.pk)).content.decode()
    assert str(24 * CREDIT) in inputs


class TestForms:
    def limit(self, project, **given):
        account = account_of(project.organization)
        return {
            "account": account.pk,
            "credits": "100",
            "mode": "hard",
            "grace_days": "0",
            "anchor_day": "1",
            "time_zone": "UTC",
            "thresholds": "80, 100",
            "reason": "a plan",
        } | given

    def top_up(self, project, **given):
        account = account_of(project.organization)
        return {"account": account.pk, "credits": "5", "priority": "0", "reason": "thanks"} | given

    def test_a_limit_is_set_and_published_with_its_reason(self, admin_client, project):
        answer = admin_client.post(page("limit_add"), self.limit(project, credits="0"))

        usage = reverse("admin:projects_organization_usage", args=[project.organization_id])
        assert answer.headers["Location"] == f"{usage}?resource=ai_credits"
        assert admin_client.get(answer.headers["Location"]).status_code == 200
        assert published(project.organization).limited
        limit = Limit.objects.get()
        assert (limit.limit_micro, limit.actor, limit.reason) == (0, "admin", "a plan")
        assert AuditEntry.objects.get().actor == "admin"

    def test_an_empty_limit_means_unlimited(self, admin_client, project):
        set_limit(project.organization, AI_CREDITS, 0)

        admin_client.post(page("limit_add"), self.limit(project, credits=""))

        assert not published(project.organization).limited

    def test_the_form_is_filled_with_the_limit_in_force(self, admin_client, project):
        set_limit(
            project.organization, AI_CREDITS, 1_500_001, anchor_day=9, time_zone="Europe/Berlin"
        )
        account = account_of(project.organization)

        shown = admin_client.get(page("limit_add"), {"account": account.pk}).content.decode()

        for value in ('value="1.500001"', 'value="9"', 'value="Europe/Berlin"'):
            assert value in shown
        assert admin_client.get(page("limit_add"), {"account": "x" * 30}).status_code == 200

    @pytest.mark.parametrize(
        "wrong",
        [
            {"credits": "many"},
            {"credits": "-1"},
            {"anchor_day": "32"},
            {"grace_days": "367"},
            {"time_zone": "Mars/Olympus"},
            {"thresholds": "80, 101"},
            {"thresholds": "half"},
            {"reason": ""},
            {"account": "999999"},
        ],
    )
    def test_an_invalid_limit_is_explained(self, admin_client, project, wrong):
        answer = admin_client.post(page("limit_add"), self.limit(project, **wrong))

        assert answer.status_code == 200
        assert b"errorlist" in answer.content
        assert not Limit.objects.exists()

    def test_a_cap_is_set_and_published_with_its_reason(self, admin_client, project):
        account = account_of(project.organization)
        form = {"account": account.pk, "scope": "user", "subject": "", "credits": "5"}

        answer = admin_client.post(page("cap_add"), form | {"reason": "fair shares"})

        assert answer.status_code == 302
        assert published(project.organization).user_cap_micro == 5 * CREDIT
        assert AuditEntry.objects.get().reason == "fair shares"
        shown = admin_client.get(page("account_change", account.pk)).content.decode()
        assert "fair shares" in shown

    def test_an_invalid_cap_is_explained(self, admin_client, project, stranger):
        account = account_of(project.organization)
        form = {"account": account.pk, "scope": "project", "subject": str(stranger.pk)}

        answer = admin_client.post(page("cap_add"), form | {"credits": "5", "reason": "?"})

        assert "has no project" in answer.content.decode()
        assert not AuditEntry.objects.exists()

    def test_a_top_up_lifts_at_once(self, admin_client, project):
        set_limit(project.organization, AI_CREDITS, 0)

        answer = admin_client.post(page("creditgrant_add"), self.top_up(project))

        assert answer.status_code == 302
        assert not published(project.organization).limited
        grant = CreditGrant.objects.get()
        assert (grant.amount_micro, grant.actor, grant.reason) == (5 * CREDIT, "admin", "thanks")

    def test_a_form_that_is_sent_twice_tops_up_once(self, admin_client, project):
        def key():
            form = admin_client.get(page("creditgrant_add")).content.decode()
            return re.search(r'name="form_key" value="(\w+)"', form)[1]

        form = self.top_up(project, form_key=key())

        first, second = [admin_client.post(page("creditgrant_add"), form) for _ in range(2)]

        assert first.status_code == 302
        assert "This top-up was already made at" in second.content.decode()
        changed = admin_client.post(page("creditgrant_add"), form | {"credits": "6"})
        assert "Open a new form" in changed.content.decode()
        assert CreditGrant.objects.get().amount_micro == 5 * CREDIT
        admin_client.post(page("creditgrant_add"), form | {"form_key": key()})
        assert CreditGrant.objects.count() == 2

    def test_a_top_up_can_start_later_and_expire(self, admin_client, project):
        start, end = timezone.now() + timedelta(days=1), timezone.now() + timedelta(days=9)

        answer = admin_client.post(
            page("creditgrant_add"),
            self.top_up(
                project,
                starts_at_0=f"{start:%Y-%m-%d}",
                starts_at_1=f"{start:%H:%M:%S}",
                expires_at_0=f"{end:%Y-%m-%d}",
                expires_at_1=f"{end:%H:%M:%S}",
            ),
        )

        assert answer.status_code == 302
        grant = CreditGrant.objects.get()
        assert grant.starts_at == start.replace(microsecond=0)
        assert grant.expires_at == end.replace(microsecond=0)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"credits": ""},
            {"credits": "0"},
            {"expires_at_0": "2020-01-01", "expires_at_1": "00:00"},
            {"starts_at_0": "9999-12-31", "starts_at_1": "00:00"},
            {"reason": ""},
        ],
    )
    def test_an_invalid_top_up_is_explained(self, admin_client, project, wrong):
        answer = admin_client.post(page("creditgrant_add"), self.top_up(project, **wrong))

        assert answer.status_code == 200
        assert b"errorlist" in answer.content
        assert not CreditGrant.objects.exists()

    def test_a_top_up_can_be_voided(self, admin_client, project):
        set_limit(project.organization, AI_CREDITS, 0)
        grant = grant_credits(project.organization, AI_CREDITS, CREDIT)

        admin_client.post(
            page("creditgrant_changelist"), {"action": "void", "_selected_action": [grant.pk]}
        )

        assert published(project.organization).limited
        assert AuditEntry.objects.filter(action="grant_voided", actor="admin").exists()


class TestActions:
    def decide(self, client, action, **said):
        chosen = list(QuarantinedEvent.objects.values_list("pk", flat=True))
        return client.post(
            page("quarantinedevent_changelist"),
            {"action": action, "_selected_action": chosen} | said,
            follow=True,
        )

    def test_a_quarantined_event_is_booked_on_the_project_that_is_named(
        self, admin_client, project
    ):
        book(usage_event(project, properties={"project_id": None}))

        self.decide(admin_client, "book_now", project=str(project.pk), reason="its thread says so")

        assert used(project.organization) == 12 * CREDIT
        entry = AuditEntry.objects.get(action="event_booked")
        assert (entry.actor, entry.reason) == ("admin", "its thread says so")

    def test_an_event_that_still_cannot_be_booked_says_why(self, admin_client, project):
        book(usage_event(project, "NaN"))

        assert b"cost_invalid" in self.decide(admin_client, "book_now").content
        answer = self.decide(admin_client, "book_now", project="999999")
        assert b"There is no project 999999" in answer.content
        assert QuarantinedEvent.objects.get().state == "open"

    def test_a_quarantined_event_is_discarded(self, admin_client, project):
        book(usage_event(project, "NaN"))

        self.decide(admin_client, "discard", reason="a test")

        assert QuarantinedEvent.objects.get().state == "discarded"
        assert b"it is already discarded" in self.decide(admin_client, "discard").content

    def test_a_payload_of_any_shape_is_shown(self, admin_client, project):
        book(usage_event(project, "<script>alert(1)</script>\ud800"))

        kept = QuarantinedEvent.objects.get()
        shown = admin_client.get(page("quarantinedevent_change", kept.pk)).content

        assert b"<script>alert(1)" not in shown
        assert b"&lt;script&gt;alert(1)" in shown

    def test_an_event_is_refunded(self, admin_client, project):
        book(usage_event(project))
        event = UsageEvent.objects.get()

        for _ in range(2):
            answer = admin_client.post(
                page("usageevent_changelist"),
                {"action": "refund", "_selected_action": [event.pk]},
                follow=True,
            )

        assert b"nothing to refund" in answer.content
        assert used(project.organization) == 0


class TestPermissions:
    @pytest.fixture
    def reader(self, client):
        """A staff user with view permissions only."""
        user = User.objects.create_user("reader", password="a long password", is_staff=True)
        user.user_permissions.set(
            Permission.objects.filter(
                content_type__app_label="billing", codename__startswith="view"
            )
        )
        client.force_login(user)
        return client

    def test_a_user_who_can_only_view_changes_nothing(self, reader, project):
        book(usage_event(project), usage_event(project, "NaN"))
        grant = grant_credits(project.organization, AI_CREDITS, CREDIT)

        for name in LISTS:
            assert reader.get(page(f"{name}_changelist")).status_code == 200
        for name in ("limit_add", "creditgrant_add", "cap_add"):
            assert reader.get(page(name)).status_code == 403
            assert reader.post(page(name), {}).status_code == 403
        for name, action, row in (
            ("creditgrant", "void", grant),
            ("usageevent", "refund", UsageEvent.objects.get()),
            ("quarantinedevent", "discard", QuarantinedEvent.objects.get()),
            ("quarantinedevent", "book_now", QuarantinedEvent.objects.get()),
        ):
            reader.post(
                page(f"{name}_changelist"), {"action": action, "_selected_action": [row.pk]}
            )
        grant.refresh_from_db()
        assert grant.voided_at is None
        assert used(project.organization) == 12 * CREDIT
        assert QuarantinedEvent.objects.get().state == "open"

    @pytest.mark.parametrize("name", LISTS)
    def test_a_user_outside_the_staff_sees_nothing(self, client, project, name):
        user = User.objects.create_user("member", password="a long password")
        project.organization.members.add(user)
        client.force_login(user)

        assert client.get(page(f"{name}_changelist")).status_code == 302
