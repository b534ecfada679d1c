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

from billing.admin import words
from billing.allowances.caps import set_cap
from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.ingestion.events import QuarantineReason
from billing.models import (
    AuditEntry,
    Cap,
    CreditGrant,
    DecisionRecord,
    Limit,
    QuarantinedEvent,
    UsageEvent,
)
from billing.organizations import create_organization, create_project
from billing.products import BUCKETS
from billing.reports.daily_usage import report_day
from projects.models import User
from quota.reasons import Reason
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, account_of, book, published, usage_event, used
from tests.second_look import box_of, confirmed_action, confirmed_form

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

    for text in (
        "the limit and all top-ups are used up",
        "24.00",
        "12.00 (hard)",
        "trial plan",
        "goodwill",
        "0.50",
    ):
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
        form = self.limit(project, credits="0")
        answer = confirmed_form(admin_client, page("limit_add"), form)

        usage = reverse("admin:projects_organization_usage", args=[project.organization_id])
        assert answer.headers["Location"] == f"{usage}?resource=ai_credits"
        assert admin_client.get(answer.headers["Location"]).status_code == 200
        assert published(project.organization).limited
        limit = Limit.objects.get()
        assert (limit.limit_micro, limit.actor, limit.reason) == (0, "admin", "a plan")
        assert AuditEntry.objects.get().actor == "admin"

    def test_unlimited_is_a_choice_of_its_own(self, admin_client, project):
        set_limit(project.organization, AI_CREDITS, 0)

        emptied = admin_client.post(page("limit_add"), self.limit(project, credits=""))
        assert "or tick “Unlimited”" in emptied.content.decode()
        both = admin_client.post(page("limit_add"), self.limit(project, no_amount="on"))
        assert "not both" in both.content.decode()
        assert published(project.organization).limited
        form = self.limit(project, credits="", no_amount="on")
        shown = admin_client.post(page("limit_add"), form).content.decode()
        assert "Acme: AI credits become unlimited, instead of 0.00 credits per period" in shown
        confirmed_form(admin_client, page("limit_add"), form)

        assert not published(project.organization).limited
        link = {"account": account_of(project.organization).pk}
        filled = admin_client.get(page("limit_add"), link).content.decode()
        assert re.search(r'name="no_amount"[^>]* checked', filled)

    def test_a_limit_that_refuses_at_once_says_who_is_refused(self, admin_client, project):
        set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
        book(usage_event(project), usage_event(project))
        form = self.limit(project, credits="12")

        shown = admin_client.post(page("limit_add"), form).content.decode()

        assert "Everybody in Acme is refused AI credits from then on, until 1 " in shown
        assert "because no credits are left" in shown
        assert not published(project.organization).limited
        asked = admin_client.post(page("limit_add"), form)
        book(usage_event(project))  # what is used meanwhile needs no other look
        again = form | {"confirmed": box_of(asked)}
        assert admin_client.post(page("limit_add"), again).status_code == 302
        assert published(project.organization).limited
        assert admin_client.post(page("limit_add"), form | {"mode": "soft"}).status_code == 302

    def test_an_unusual_limit_or_top_up_is_shown_again(self, admin_client, project):
        set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
        limit = self.limit(project, credits="1000")
        assert admin_client.post(page("limit_add"), limit).status_code == 302
        asked = admin_client.post(page("limit_add"), limit | {"credits": "10000.000001"})
        assert "This is 10 times as much" in asked.content.decode()
        other = limit | {"credits": "99999", "confirmed": box_of(asked)}
        assert "99 times as much" in admin_client.post(page("limit_add"), other).content.decode()
        assert Limit.objects.first().limit_micro == 1000 * CREDIT

        top_up = self.top_up(project, credits="20000")
        asked = admin_client.post(page("creditgrant_add"), top_up)
        assert "Acme gets 20,000.00 AI credits as a top-up." in asked.content.decode()
        assert "A usual top-up here is 1,000.00 credits" in asked.content.decode()
        assert not CreditGrant.objects.exists()
        confirmed_form(admin_client, page("creditgrant_add"), top_up)
        assert CreditGrant.objects.get().amount_micro == 20_000 * CREDIT
        assert AuditEntry.objects.first().reason == "thanks"

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
            {"credits": ""},
            {"anchor_day": "32"},
            {"anchor_day": "0"},
            {"anchor_day": ""},
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
        assert b"Constraint" not in answer.content
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
        assert f"Its projects: {project.pk} (Main)." in answer.content.decode()
        each = admin_client.post(
            page("cap_add"), form | {"scope": "run", "credits": "5", "reason": "?"}
        )
        assert "applies to every run" in each.content.decode()
        assert "Constraint" not in each.content.decode()
        assert not AuditEntry.objects.exists()

    def test_a_cap_for_somebody_never_seen_asks_again(self, admin_client, project, stranger):
        book(usage_event(project), usage_event(stranger, distinct_id="slack:T1:U2"))
        account = account_of(project.organization)
        form = {"account": account.pk, "scope": "user", "credits": "5", "reason": "fair"}

        asked = admin_client.post(page("cap_add"), form | {"subject": "slack:T1:U2"})
        assert "Nobody called slack:T1:U2 has ever used credits of Acme" in asked.content.decode()
        box_of(asked)
        known = admin_client.post(page("cap_add"), form | {"subject": "slack:T1:U1"})
        assert known.status_code == 302
        confirmed_form(admin_client, page("cap_add"), form | {"subject": "slack:T1:U2"})
        assert Cap.objects.count() == 2

    def test_a_cap_emptied_by_mistake_is_not_lifted(self, admin_client, project):
        set_cap(project.organization, AI_CREDITS, "user", CREDIT)
        form = {"account": account_of(project.organization).pk, "scope": "user", "reason": "x"}

        emptied = admin_client.post(page("cap_add"), form | {"credits": ""})
        assert "or tick “Not capped”" in emptied.content.decode()
        assert admin_client.post(page("cap_add"), form | {"no_amount": "on"}).status_code == 302
        assert published(project.organization).user_cap_micro is None

    def test_a_cap_of_zero_asks_again(self, admin_client, project):
        form = {"account": account_of(project.organization).pk, "scope": "run", "credits": "0"}
        asked = admin_client.post(page("cap_add"), form | {"reason": "x"})
        assert "every run without a cap of its own is refused" in asked.content.decode()
        assert not Cap.objects.exists()

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
        form = {"action": "void", "_selected_action": [grant.pk]}

        shown = admin_client.post(page("creditgrant_changelist"), form).content.decode()
        assert "Acme loses what is left of its top-up from" in shown
        assert "Everybody in Acme is refused AI credits from then on" in shown
        assert not published(project.organization).limited
        confirmed_action(
            admin_client, page("creditgrant_changelist"), "void", grant, reason="a wrong account"
        )

        assert published(project.organization).limited
        entry = AuditEntry.objects.get(action="grant_voided")
        assert (entry.actor, entry.reason) == ("admin", "a wrong account")

    def test_an_action_needs_a_reason_and_what_was_shown(self, admin_client, project):
        grant = grant_credits(project.organization, AI_CREDITS, CREDIT)
        form = {"action": "void", "_selected_action": [grant.pk]}
        asked = admin_client.post(page("creditgrant_changelist"), form)
        confirmed = {"confirmed": asked.context["confirmed"]}

        unsaid = admin_client.post(page("creditgrant_changelist"), form | confirmed)
        assert "Say why" in unsaid.content.decode()
        set_limit(project.organization, AI_CREDITS, 0)  # now voiding it refuses everybody
        changed = admin_client.post(
            page("creditgrant_changelist"), form | confirmed | {"reason": "x"}
        )
        assert "Something has changed meanwhile" in changed.content.decode()
        grant.refresh_from_db()
        assert grant.voided_at is None


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

        assert b"its cost is not an amount" in self.decide(admin_client, "book_now").content
        answer = self.decide(admin_client, "book_now", project="999999")
        assert b"There is no project 999999" in answer.content
        assert QuarantinedEvent.objects.get().state == "open"

    def test_a_quarantined_event_is_discarded(self, admin_client, project):
        book(usage_event(project, "NaN"))

        kept = QuarantinedEvent.objects.get()
        shown = self.decide(admin_client, "discard", reason="a test").content.decode()
        assert "Nobody ever pays for" in shown
        assert 'value="a test"' in shown
        for said in ("1 event(s) discarded", "it is already discarded"):
            answer = confirmed_action(
                admin_client, page("quarantinedevent_changelist"), "discard", kept
            )
            assert said in answer.content.decode()
        assert QuarantinedEvent.objects.get().state == "discarded"
        assert AuditEntry.objects.get().reason == "a good reason"

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
            answer = confirmed_action(admin_client, page("usageevent_changelist"), "refund", event)

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
            form = {"action": action, "_selected_action": [row.pk]}
            answer = reader.post(page(f"{name}_changelist"), form, follow=True)
            assert "What will happen" not in answer.content.decode()
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


class TestWords:
    def test_the_audit_trail_is_in_sentences(self, admin_client, project):
        organization = project.organization
        set_limit(organization, AI_CREDITS, 100 * CREDIT, reason="plan")
        set_limit(organization, AI_CREDITS, None, reason="plan")
        grant_credits(organization, AI_CREDITS, CREDIT)
        set_cap(organization, AI_CREDITS, "user", CREDIT, subject="slack:T1:U1")
        set_cap(organization, AI_CREDITS, "run", None)
        shown = admin_client.get(page("auditentry_changelist")).content.decode()
        for sentence in (
            "100.00 credits per period for AI credits, before: unlimited (hard, periods from day 1",
            "unlimited per period for AI credits, before: 100.00 credits",
            "1.00 AI credits from ",
            "user slack:T1:U1: at most 1.00 credits of AI credits",
            "each run without a cap of its own: not capped of AI credits",
        ):
            assert sentence in shown
        assert "_micro" not in shown

    def test_every_name_has_words(self):
        assert set(words.QUARANTINE_REASONS) == set(QuarantineReason)
        assert set(words.REASONS) == set(Reason)
        assert set(words.TITLES) == set(BUCKETS)
        assert words.in_words({}, "ModelFailed") == "model failed"

    @pytest.mark.parametrize("name", LISTS)
    def test_no_list_shows_an_identifier(self, admin_client, project, name):
        set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
        book(usage_event(project), usage_event(project, "NaN"))
        report_day(timezone.now().date())
        shown = admin_client.get(page(f"{name}_changelist")).content.decode()
        text = re.sub(r"<(script|head)[^>]*>.*?</\1>|<[^>]*>", " ", shown, flags=re.DOTALL)
        for identifier in ("limit_reached", "ai_credits", "slack_app", "cost_invalid", "_micro"):
            assert identifier not in text
