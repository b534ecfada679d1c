"""Append-only rows can't be changed or deleted, neither through the ORM nor in the database."""

import importlib
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing.allowances.caps import set_cap
from billing.allowances.limits import set_limit
from billing.append_only import AppendOnlyError
from billing.ingestion.refunds import refund_attempt, refund_run
from billing.models import (
    AttemptRefund,
    AuditEntry,
    Cap,
    DecisionRecord,
    Limit,
    RunRefund,
    ThresholdNotice,
    UsageEvent,
)
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, book, usage_event

pytestmark = pytest.mark.django_db
KEPT = [
    UsageEvent,
    Limit,
    Cap,
    DecisionRecord,
    AuditEntry,
    ThresholdNotice,
    RunRefund,
    AttemptRefund,
]
triggers = importlib.import_module("billing.migrations.0002_triggers")


@pytest.fixture
def written(project):
    """One row of each model."""
    set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
    set_cap(project.organization, AI_CREDITS, "run", CREDIT)
    event = usage_event(project)
    book(event)
    run, now = UUID(event["properties"]["task_run_id"]), timezone.now()
    refund_attempt(run, project, now - timedelta(hours=1), now, reason="LostTurn")
    refund_run(run, project, reason="ResultLost")
    return project


@pytest.mark.parametrize("model", KEPT)
def test_the_orm_refuses_to_change_or_delete(written, model):
    row = model.objects.first()

    for attempt in (
        row.save,
        row.delete,
        model.objects.all().delete,
        lambda: model.objects.update(pk=row.pk),
        lambda: model.objects.bulk_update([row], [row._meta.concrete_fields[1].name]),
        lambda: model.objects.update_or_create(pk=row.pk),
        lambda: model.objects.bulk_create(
            [row],
            update_conflicts=True,
            unique_fields=[row._meta.pk.name],
            update_fields=[row._meta.concrete_fields[1].name],
        ),
    ):
        with pytest.raises(AppendOnlyError):
            attempt()


def test_a_row_is_inserted_without_an_attempt_to_change_one(written):
    row = UsageEvent.objects.get(adjusts=None)
    same = UsageEvent(**{field.attname: getattr(row, field.attname) for field in row._meta.fields})
    with (
        CaptureQueriesContext(connection) as queries,
        pytest.raises(IntegrityError),
        transaction.atomic(),
    ):
        same.save()
    assert not [query for query in queries if "UPDATE" in query["sql"]]


@pytest.mark.parametrize("model", KEPT)
def test_the_database_refuses_to_change_or_delete(written, model):
    table, pk = model._meta.db_table, model._meta.pk.column
    if connection.vendor == "sqlite":  # where the suite removes the triggers to clean up
        with connection.cursor() as cursor:
            cursor.execute(triggers.SQLITE_TRIGGER.format(table=table, action="delete"))

    for statement in (f"UPDATE {table} SET {pk} = {pk}", f"DELETE FROM {table}"):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    assert model.objects.exists()


def test_every_append_only_table_has_its_triggers_after_all_migrations():
    newest = MigrationExecutor(connection).loader.graph.leaf_nodes("billing")

    assert newest, "billing has migrations"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
            if connection.vendor == "postgresql"
            else "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        )
        there = {name for (name,) in cursor.fetchall()}
    actions = ["update", "delete"] if connection.vendor == "postgresql" else ["update"]
    assert {f"{model._meta.db_table}_no_{action}" for model in KEPT for action in actions} <= there
