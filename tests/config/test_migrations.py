"""Migrations run while the previous version still serves."""

import pytest
from django.db import migrations
from django.db.migrations.loader import MigrationLoader
from django.db.models import NOT_PROVIDED

OWN = {"billing", "coding_tasks", "projects", "quota", "workflows"}


def added_columns():
    for (app, name), migration in MigrationLoader(None).disk_migrations.items():
        if app not in OWN or migration.initial:
            continue
        for operation in migration.operations:
            if isinstance(operation, migrations.AddField):
                yield f"{app}.{name}: {operation.model_name}.{operation.name}", operation.field


@pytest.mark.parametrize(
    "field", [pytest.param(field, id=label) for label, field in added_columns()]
)
def test_the_previous_version_can_insert_rows_without_an_added_column(field):
    assert field.null or field.many_to_many or field.db_default is not NOT_PROVIDED
