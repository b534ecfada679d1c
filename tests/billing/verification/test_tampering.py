"""A change of one row through SQL is reported, or the operations page says why it isn't.

Every column of every table of billing and quota is changed, one at a time, with SQL and without the
triggers. A row of every table is deleted and duplicated.
"""

import io
import re
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from uuid import UUID

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, models, transaction
from django.utils import timezone

from billing.allowances.caps import set_cap
from billing.allowances.grants import grant_credits, void_grant
from billing.allowances.limits import set_limit
from billing.consistent_read import consistent_read
from billing.ingestion import quarantine, refunds
from billing.ingestion.insufficient_remaining import report as report_insufficient
from billing.ingestion.ledger import DELIVERED_AGAIN, book_rows
from billing.ingestion.ledger_rows import LedgerRow
from billing.models import (
    Account,
    CheckpointSum,
    DecisionRecord,
    QuarantinedEvent,
    ReportedUsage,
    ThresholdNotice,
    UsageEvent,
)
from billing.organizations import create_organization, create_project
from billing.reports.daily_usage import report_what_was_booked
from billing.reports.usage_sums import sum_what_was_booked
from billing.sweep import sweep_all
from billing.verification.all_faults import all_faults
from billing.verification.drift import SURELY_COMMITTED, drifted, repair_drift
from projects.models import Project
from quota.models import SetMember
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, book, held, usage_event

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"

UNDETECTABLE = {
    "billing.UsageEvent": [
        "uuid",
        "kind",
        "occurred_at",
        "price_version",
        "provider",
        "trace_id",
        "service_tier",
        "cache_creation_5m_input_tokens",
        "cache_creation_1h_input_tokens",
        "web_search_count",
        "latency_ms",
        "http_status",
        "is_stream",
        "is_error",
        "is_estimated",
        "payload_sha256",
    ],
    "billing.Account": [
        "exhausted_since",
        "insufficient_micro",
        "insufficient_at",
        "announced_of_micro",
        "warning_round",
        "verified_at",
    ],
    "billing.QuarantinedEvent": ["reason", "detail", "received_at", "resolved_at"],
    "billing.ThresholdNotice": ["usage_micro", "noticed_at"],
    "billing.DecisionRecord": ["version", "inputs", "outcome"],
    "billing.AuditEntry": ["at"],
    "billing.ReportedUsage": ["booked_before"],
    "billing.SummedUsage": ["booked_before"],
    "billing.LedgerCheckpoint": ["booked_before"],
    "quota.QuotaState": ["changed_at"],
    "quota.SetMember": ["version", "since", "changed_at"],
}
LOST_UNNOTICED = ["billing.ReportedUsage"]
WRITTEN_TWICE_UNNOTICED = [
    "billing.ReportedUsage",
    "billing.SummedUsage",
    "billing.LedgerCheckpoint",
]
MODELS = [*apps.get_app_config("billing").get_models(), *apps.get_app_config("quota").get_models()]
pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def _history(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock(), transaction.atomic():
        make_history()
        untie_tables()
        yield
        transaction.set_rollback(True)


@pytest.fixture
def history(_history, db):
    """Rows in every table, after a sweep that found no differences.

    All tests of this file use the same rows, and undo what they change.
    """


def make_history():
    project = create_project(create_organization("Acme"), "Main")
    stranger = create_project(create_organization("Strangers"), "Theirs")
    organization = project.organization
    for each in (project, stranger):
        set_limit(each.organization, AI_CREDITS, 60 * CREDIT, actor="ops", reason="trial")
        grant_credits(each.organization, AI_CREDITS, 10 * CREDIT, actor="ops", reason="welcome")
    void_grant(grant_credits(organization, AI_CREDITS, CREDIT), actor="ops")
    set_cap(organization, AI_CREDITS, "user", 30 * CREDIT, actor="ops")
    set_cap(organization, AI_CREDITS, "project", 500 * CREDIT, actor="ops")
    call, other, wrong = (held(usage_event(project), 12 * CREDIT) for _ in range(3))
    book(call, other, wrong, usage_event(stranger), usage_event(project, at=last_month()))
    correction = held(usage_event(project, "-0.01"), -1_200_000) | {"hold_id": call["uuid"]}
    book(correction, usage_event(project, properties={"$ai_billable": False}))
    refunds.refund(UsageEvent.objects.get(pk=wrong["uuid"]), actor="ops", reason="wrong model")
    book(failed := usage_event(project, properties={"task_run_id": str(UUID(int=1))}))
    refunds.refund_run(UUID(int=1), project, reason="ResultLost", actor="coding tasks")
    book(failed | {"uuid": str(UUID(int=2))})
    now = timezone.now()
    book(usage_event(project, at=now, properties={"task_run_id": str(UUID(int=3))}))
    span = now - timedelta(minutes=1), now + timedelta(minutes=1)
    refunds.refund_attempt(UUID(int=3), project, *span, reason="LostTurn", actor="coding tasks")
    lost = [usage_event(project, properties={"project_id": None}) for _ in range(2)]
    lost.append(held(usage_event(project, properties={"project_id": None}), 3 * CREDIT))
    book(*lost)
    booked, _, discarded = QuarantinedEvent.objects.order_by("pk")
    quarantine.book_now(booked, project=project, actor="ops")
    quarantine.discard(discarded, actor="ops")
    report_insufficient(stranger.organization_id, AI_CREDITS, 1)
    book(usage_event(project, "0.30"))
    report_what_was_booked()
    ReportedUsage.objects.update(booked_before=timezone.now())
    sum_what_was_booked(timezone.now())
    sweep_all()
    repair_drift(timezone.now() + SURELY_COMMITTED)


def last_month():
    return timezone.now() - timedelta(days=35)


def untie_tables():
    """Drop the triggers, as somebody with full access to the database could."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute(
                "SELECT tgname, tgrelid::regclass FROM pg_trigger WHERE NOT tgisinternal"
            )
            for name, table in cursor.fetchall():
                cursor.execute(f"DROP TRIGGER {name} ON {table}")
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        else:
            cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            for (name,) in cursor.fetchall():
                cursor.execute(f"DROP TRIGGER {name}")


def findings():
    """Return what `verify_ledger` and the drift check report."""
    output = io.StringIO()
    try:
        call_command("verify_ledger", stdout=output)
    except CommandError:
        return output.getvalue().splitlines()[1:]
    return drift()


def drift():
    return [f"drift of account {pk}" for pk in drifted()]


def first_finding():
    """Return `findings()`, but stop at the first one, which takes less than half the time."""
    with consistent_read():
        return [*islice(all_faults(), 1)] or drift()


def test_nothing_is_reported_without_tampering(history):
    assert findings() == []


def row_of(model):
    """Return a row of the model whose change has many consequences."""
    rows = model._base_manager.order_by("pk")
    if model is UsageEvent:
        adjusted = UsageEvent.objects.exclude(adjusts=None).values("adjusts")
        held = rows.filter(kind="usage", account=account_of_acme()).exclude(group="")
        return held.exclude(pk__in=adjusted).get()
    if model is QuarantinedEvent:
        return rows.get(state="discarded")
    if model is DecisionRecord:
        return rows.filter(subject="", account=account_of_acme()).last()
    if model is ThresholdNotice:
        return rows.latest("percent")
    if model in (Account, CheckpointSum):
        return rows.get(pk=account_of_acme().pk)
    if model is SetMember:
        return rows.filter(limited_until__isnull=False).first()
    return rows.first()


def account_of_acme():
    return Account.objects.get(organization__name="Acme", resource=AI_CREDITS)


def another(field, value):
    """Return another valid value of the column."""
    if field.is_relation:
        others = field.related_model._base_manager.exclude(pk=value).order_by("pk")
        return others.values_list("pk", flat=True).last()
    if field.name == "time_zone":
        return "Europe/Berlin"
    if field.choices:
        names = [name for name, _ in field.choices]
        return names[(names.index(value) + 1) % len(names)] if value in names else names[0]
    if value is None:
        empty = {"DateTimeField": timezone.now(), "UUIDField": UUID(int=7), "CharField": ""}
        value = empty.get(field.get_internal_type(), 0)
    return changed(value, getattr(field, "max_length", None))


def changed(value, longest=None):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, dict):
        numbers = {name: item for name, item in value.items() if isinstance(item, int)}
        return value | {name: changed(item) for name, item in numbers.items()}
    if isinstance(value, list):
        return [*value, 99]
    if isinstance(value, UUID):
        return UUID(int=value.int ^ 1)
    if isinstance(value, datetime):
        return value + timedelta(minutes=3)
    if isinstance(value, date):
        return value - timedelta(days=1)
    return value if value is None else f"{value}7"[-(longest or 10**9) :]


def reported(harm, find=first_finding):
    """Do harm, return what `find` reports, and undo the harm.

    Return None if a constraint prevents the harm.
    """
    try:
        with transaction.atomic():
            harm()
            found = find()
            transaction.set_rollback(True)
    except DatabaseError:
        return None
    return found


def test_a_change_of_any_column_is_reported(history, subtests):
    """All undetectable columns of a table change together, the others one by one."""
    for model in MODELS:
        row = row_of(model)
        rows = models.QuerySet(model).filter(pk=row.pk)
        undetectable = UNDETECTABLE.get(model._meta.label, [])
        silent, together = [], {}
        for field in model._meta.concrete_fields:
            if isinstance(field, models.AutoField):
                continue
            update = {field.attname: another(field, getattr(row, field.attname))}
            if field.name in undetectable:
                together |= update
            elif reported(lambda rows=rows, update=update: rows.update(**update)) == []:
                silent.append(field.name)
        with subtests.test(model._meta.label):
            assert silent == []
            assert len(together) == len(undetectable)
            assert reported(lambda rows=rows, all_=together: all_ and rows.update(**all_)) == []


def test_a_deleted_row_is_reported(history):
    silent = [
        model._meta.label
        for model in MODELS
        if reported(lambda model=model: delete(model, row_of(model).pk)) == []
    ]

    assert silent == LOST_UNNOTICED


def delete(model, pk):
    with connection.cursor() as cursor:
        table, column = model._meta.db_table, model._meta.pk.column
        value = model._meta.pk.get_db_prep_value(pk, connection)
        cursor.execute(f"DELETE FROM {table} WHERE {column} = %s", [value])


def test_a_duplicated_row_is_reported(history):
    silent = [
        model._meta.label
        for model in MODELS
        if reported(lambda model=model: write_again(row_of(model))) == []
    ]

    assert silent == WRITTEN_TWICE_UNNOTICED


def write_again(row):
    row.pk = UUID(int=7) if isinstance(row.pk, UUID) else 10_000
    models.QuerySet(type(row)).bulk_create([row])


class TestWrongRowsWithMatchingTotals:
    """Wrong rows that were booked regularly, so that the totals agree with them."""

    def book(self, row, **changes):
        account = Account.objects.select_related("organization").get(pk=row.account_id)
        names = {name: getattr(row, name) for name in LedgerRow._fields}
        now = timezone.now()
        same = {"uuid": UUID(int=8), "group": "", "booked_at": now}
        wrong = LedgerRow(**names | same | changes)
        return reported(lambda: book_rows([wrong], [account], now), findings)

    def test_an_event_of_another_organizations_project_is_reported(self, history):
        row = row_of(UsageEvent)
        theirs = Project.objects.get(organization__name="Strangers")

        [fault, *_] = self.book(row, project_id=theirs.pk)

        assert f"a project of organization {theirs.organization_id} used" in fault

    def test_a_refund_of_more_than_the_event_cost_is_reported(self, history):
        row = row_of(UsageEvent)
        more = {"credits_micro": -12 * CREDIT - 1, "cost_usd": "-0.10", "adjusts": row.uuid}

        found = self.book(row, kind="refund", **more)

        assert any("give back 1 micro-credits more than it cost" in fault for fault in found)

    def test_a_correction_of_another_accounts_event_is_reported(self, history):
        theirs = UsageEvent.objects.get(account__organization__name="Strangers")

        [fault] = self.book(row_of(UsageEvent), kind="correction", adjusts=theirs.uuid)

        assert "which another account pays" in fault

    @pytest.mark.parametrize("kind", ["refund", "correction"])
    def test_an_adjustment_of_a_missing_event_is_reported(self, history, kind):
        found = self.book(row_of(UsageEvent), kind=kind, adjusts=UUID(int=9))

        assert any("which is not in the ledger" in fault for fault in found)

    @pytest.mark.parametrize("amount", [-12 * CREDIT, CREDIT])
    def test_a_plausible_correction_is_not_reported(self, history, amount):
        row = row_of(UsageEvent)
        cost = {"credits_micro": amount, "cost_usd": str(Decimal(amount) / (120 * CREDIT))}

        assert self.book(row, kind="correction", adjusts=row.uuid, **cost) == []

    def test_a_correction_cut_to_what_a_refund_left_is_not_reported(self, history):
        of_runs = [UUID(int=1), UUID(int=3)]
        refund = UsageEvent.objects.exclude(task_run_id__in=of_runs).get(kind="refund")
        cost = {"credits_micro": -CREDIT, "cost_usd": "-0.008"}

        assert self.book(refund, kind="correction", **cost) == []


def test_a_quarantined_event_closed_or_opened_without_a_decision_is_reported(history):
    now = timezone.now()
    for state, update in [
        ("open", {"state": "booked", "resolved_by": DELIVERED_AGAIN, "resolved_at": now}),
        ("open", {"state": "discarded", "resolved_by": "ops", "resolved_at": now}),
        ("booked", {"state": "open", "resolved_at": None}),
        ("booked", {"resolved_by": DELIVERED_AGAIN}),
        ("discarded", {"state": "booked"}),
        ("discarded", {"state": "open", "resolved_at": None}),
    ]:
        rows = QuarantinedEvent.objects.filter(state=state)
        assert reported(lambda rows=rows, update=update: rows.update(**update)), (state, update)


def test_the_operations_page_lists_every_undetectable_column():
    page = OPERATIONS.read_text()
    _, _, section = page.partition("## What `verify_ledger` cannot know")

    for label, names in UNDETECTABLE.items():
        [line] = [
            line for line in section.splitlines() if line.startswith(f"| {label.split('.')[1]} ")
        ]
        assert sorted(re.findall(r"`(\w+)`", line.split("|")[2])) == sorted(names)
