"""The management commands work, and every mistake gives one clear line."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.ingestion.refunds import refund
from billing.models import Account, AccountGroup, AuditEntry, CreditGrant, UsageEvent, UsageTotal
from billing.verification.rebuild import rebuild
from quota.models import QuotaState
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, account_of, book, held, published, usage_event, used

pytestmark = pytest.mark.django_db


def run(*words):
    """Run a command and return what it prints."""
    output = io.StringIO()
    call_command(*map(str, words), stdout=output)
    return output.getvalue()


@pytest.mark.parametrize(
    "words",
    [
        ("set_limit", "999999", "ai_credits", "10"),
        ("set_limit", "abc", "ai_credits", "10"),
        ("set_limit", "9" * 30, "ai_credits", "10"),
        ("set_limit", "PROJECT", "chess", "10"),
        ("set_limit", "PROJECT", "ai_credits", "ten"),
        ("set_limit", "PROJECT", "ai_credits", "1e3"),
        ("grant_credits", "999999", "ai_credits", "10"),
        ("grant_credits", "PROJECT", "chess", "10"),
        ("grant_credits", "PROJECT", "ai_credits", "0"),
        ("grant_credits", "PROJECT", "ai_credits", "none"),
        ("grant_credits", "PROJECT", "ai_credits", "10", "--expires", "tomorrow"),
        ("grant_credits", "PROJECT", "ai_credits", "10", "--expires", "2020-01-01"),
        ("grant_credits", "PROJECT", "ai_credits", "10", "--idempotency-key", "k" * 101),
        ("set_cap", "PROJECT", "ai_credits", "team", "10"),
        ("set_cap", "PROJECT", "ai_credits", "run", "10", "--for", "somebody"),
        ("set_cap", "PROJECT", "ai_credits", "user", "ten"),
        ("quota_status", "999999"),
        ("rebuild_quota", "--project", "999999"),
        ("export_usage", "--project", "999999"),
        ("export_usage", "--since", "yesterday"),
        ("export_usage", "--since", "0001-01-01T00:00+14:00"),
        ("export_usage", "--output", "/nowhere/at/all.csv"),
    ],
)
def test_a_mistake_is_one_clear_line_and_changes_nothing(project, words):
    with pytest.raises(CommandError) as error:
        run(*(project.pk if word == "PROJECT" else word for word in words))

    assert error.value.returncode == 1
    assert len(str(error.value).splitlines()) == 1
    assert not AuditEntry.objects.exists()


def test_a_limit_is_set_for_the_organization(project, stranger):
    said = run("set_limit", project.pk, "ai_credits", "0", "--reason", "trial over")

    assert "Acme: ai_credits 0.00 credits per period (hard)." in said
    assert published(project.organization).limited
    assert not published(stranger.organization).limited
    assert AuditEntry.objects.get().reason == "trial over"


def test_none_is_unlimited_and_soft_only_warns(project):
    run("set_limit", project.pk, "ai_credits", "0")

    assert "unlimited" in run("set_limit", project.pk, "ai_credits", "none")
    assert not published(project.organization).limited
    run("set_limit", project.pk, "ai_credits", "0", "--soft")
    assert published(project.organization).mode == "soft"
    assert not published(project.organization).limited


def test_a_cap_applies_to_one_user_or_to_each(project):
    said = run("set_cap", project.pk, "ai_credits", "user", "5")
    assert "Acme: ai_credits of each user: at most 5.00 credits." in said
    said = run("set_cap", project.pk, "ai_credits", "user", "none", "--for", "slack:T1:U1")
    assert "Acme: ai_credits of slack:T1:U1: not capped." in said
    assert published(project.organization).user_cap_micro == 5 * CREDIT


def test_credits_are_granted_until_a_date(project):
    run("set_limit", project.pk, "ai_credits", "0")

    said = run("grant_credits", project.pk, "ai_credits", "2.5", "--expires", "2099-12-31")

    assert "2.50 ai_credits granted until 2099-12-31 00:00 UTC" in said
    assert not published(project.organization).limited
    grant = CreditGrant.objects.get()
    assert grant.expires_at == datetime(2099, 12, 31, tzinfo=UTC)
    elsewhere = "2099-12-31T00:00+02:00"
    said = run("grant_credits", project.pk, "ai_credits", "1", "--expires", elsewhere)
    assert "until 2099-12-30 22:00 UTC" in said


def test_the_same_idempotency_key_grants_credits_once(project, stranger):
    words = "ai_credits", "2.5", "--idempotency-key", "invoice 7"

    said = [run("grant_credits", project.pk, *words) for _ in range(2)]

    assert "2.50 ai_credits granted" in said[0]
    assert "2.50 ai_credits granted, already at 20" in said[1]
    with pytest.raises(CommandError, match="A different top-up"):
        run("grant_credits", project.pk, "ai_credits", "3", *words[2:])
    assert CreditGrant.objects.get().amount_micro == 2_500_000
    run("grant_credits", stranger.pk, *words)
    assert CreditGrant.objects.count() == 2


class TestStatus:
    def test_it_shows_what_the_gates_see(self, project):
        set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
        book(usage_event(project))

        lines = run("quota_status", project.pk).splitlines()

        assert lines[0].startswith("Acme / Main (from the database)")
        [ai_credits] = [line for line in lines if line.startswith("ai_credits")]
        assert ai_credits.split()[1:6] == ["limited", "limit_reached", "12.00", "12.00", "0.00"]
        [desktop] = [line for line in lines if line.startswith("posthog_code_credits")]
        assert desktop.split()[1:6] == ["ok", "–", "–", "unlimited", "unlimited"]

    def test_json_output_equals_the_answer_of_the_endpoint(self, project):
        set_limit(project.organization, AI_CREDITS, 0)

        answer = json.loads(run("quota_status", project.pk, "--json"))

        assert answer["organization_id"] == str(project.organization_id)
        assert answer["limited"]["ai_credits"]["limited"] is True
        assert answer["limited"]["posthog_code_credits"]["limited"] is False


class TestVerification:
    @pytest.fixture
    def booked(self, project):
        set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
        grant_credits(project.organization, AI_CREDITS, 5 * CREDIT)
        book(
            held(usage_event(project), 12 * CREDIT),
            usage_event(project, at=timezone.now() - timedelta(days=35)),
            usage_event(project, properties={"ai_product": "posthog_code"}),
            usage_event(project, properties={"$ai_billable": False}),
        )
        return project

    def test_everything_agrees_after_booking(self, booked):
        said = run("verify_ledger")

        assert "4 events, ledger 34.00 credits, totals 34.00 credits." in said
        assert "Everything agrees with the ledger." in said

    def spoil(self, what, project):
        account = account_of(project.organization)
        if what == "total":
            UsageTotal.objects.filter(account=account).update(usage_micro=1)
        elif what == "missing total":
            UsageTotal.objects.filter(account=account).delete()
        elif what == "group":
            AccountGroup.objects.filter(account=account).update(booked_micro=1)
        elif what == "unknown group":
            AccountGroup.objects.create(account=account, group="ghost", booked_micro=1)
        else:
            Account.objects.filter(pk=account.pk).update(published_digest="")

    @pytest.mark.parametrize(
        "what", ["total", "missing total", "group", "unknown group", "published state"]
    )
    def test_differences_are_named_and_repaired_by_a_rebuild(self, booked, what):
        before = published(booked.organization)
        self.spoil(what, booked)

        with pytest.raises(CommandError, match="difference"):
            run("verify_ledger")
        assert "accounts rebuilt" in run("rebuild_quota")

        assert "Everything agrees" in run("verify_ledger")
        after = published(booked.organization)
        assert after.version > before.version
        assert after.usage_micro == before.usage_micro
        assert after.booked == before.booked
        assert after.allotment_micro == before.allotment_micro

    def test_a_row_that_contradicts_itself_is_named(self, booked):
        row = UsageEvent.objects.filter(account__isnull=False).first()
        row._state.adding = True
        row.pk = "0b6f7f9e-3c7e-4d50-9f0e-6d1f7a6a3f11"
        row.credits_micro += 1
        row.save()

        output = io.StringIO()
        with pytest.raises(CommandError):
            call_command("verify_ledger", stdout=output)
        assert "0b6f7f9e-3c7e-4d50-9f0e-6d1f7a6a3f11" in output.getvalue()

    def test_programs_get_the_outcome_as_json(self, booked):
        outcome = json.loads(run("verify_ledger", "--json"))
        assert outcome["events"] == UsageEvent.objects.count()
        assert outcome["ledger_micro"] == outcome["totals_micro"] > 0
        assert outcome["differences"] == []
        UsageTotal.objects.all().delete()
        output = io.StringIO()
        with pytest.raises(CommandError, match="difference"):
            call_command("verify_ledger", "--json", stdout=output)
        assert json.loads(output.getvalue())["differences"]


class TestRebuild:
    def test_all_projections_come_from_the_ledger_alone(self, project, stranger):
        set_limit(project.organization, AI_CREDITS, 20 * CREDIT)
        grant_credits(project.organization, AI_CREDITS, 5 * CREDIT)
        book(held(usage_event(project), 12 * CREDIT), usage_event(stranger), usage_event(project))
        before = {row.pk: row.published for row in QuotaState.objects.all()}
        UsageTotal.objects.all().delete()
        AccountGroup.objects.all().delete()
        Account.objects.update(
            state="", reason="", booked=False, exhausted_since=None, period_start=None
        )

        run("rebuild_quota")

        for row in QuotaState.objects.all():
            was, now = before[row.pk], row.published
            assert (was.state, was.usage_micro, was.remaining_micro, was.booked) == (
                now.state,
                now.usage_micro,
                now.remaining_micro,
                now.booked,
            )
        assert used(stranger.organization) == 12 * CREDIT

    def test_one_organization_can_be_rebuilt_alone(self, project, stranger):
        version = published(stranger.organization).version

        assert run("rebuild_quota", "--project", project.pk).startswith("2 accounts")
        assert published(stranger.organization).version == version

    def test_a_restored_database_begins_an_epoch_that_sorts_after_the_old_one(self, project):
        before = published(project.organization).ledger_epoch

        rebuild(account_of(project.organization).pk, new_epoch=True)

        assert published(project.organization).ledger_epoch > before


class TestExport:
    def export(self, tmp_path, *words):
        path = tmp_path / "usage.csv"
        run("export_usage", "--output", path, *words)
        return list(csv.DictReader(path.read_text().splitlines()))

    def test_it_has_exact_amounts_and_who_used_what(self, project, tmp_path):
        event = usage_event(project, "0.000000013")
        book(event)

        [row] = self.export(tmp_path)

        assert (row["uuid"], row["cost_usd"]) == (event["uuid"], "0.000000013")
        assert row["credits_micro"] == "2"
        assert row["organization_id"] == str(project.organization_id)
        assert (row["resource"], row["product"]) == ("ai_credits", "slack_app")
        assert row["distinct_id"] == "slack:T1:U1"
        assert row["occurred_at"] == event["timestamp"]

    def test_a_caller_cannot_put_a_formula_into_a_spreadsheet(self, project, tmp_path):
        formulas = {"$ai_model": "=1+1", "$ai_trace_id": "\t@A1", "$ai_provider": "-1+1"}
        event = usage_event(project, properties=formulas, distinct_id="+A1")
        book(event)
        refund(UsageEvent.objects.get())

        rows = {row["kind"]: row for row in self.export(tmp_path)}

        names = ("model", "trace_id", "provider", "distinct_id")
        assert [rows["usage"][name] for name in names] == ["'=1+1", "'\t@A1", "'-1+1", "'+A1"]
        assert rows["refund"]["cost_usd"] == "-0.10"
        assert rows["refund"]["credits_micro"] == "-12000000"

    def test_it_can_be_filtered_by_project_and_time(self, project, stranger, tmp_path):
        now = timezone.now()
        events = [usage_event(project, at=now - timedelta(days=days)) for days in (9, 5, 1)]
        book(*events, usage_event(stranger))
        day = f"{now - timedelta(days=7):%Y-%m-%d}"

        assert len(self.export(tmp_path)) == 4
        assert len(self.export(tmp_path, "--project", str(project.pk))) == 3
        assert len(self.export(tmp_path, "--since", day)) == 3
        [old] = self.export(tmp_path, "--until", day)
        assert old["uuid"] == events[0]["uuid"]
