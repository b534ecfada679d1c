"""A project as `billing.organizations` creates it, for tests that need any project.

Creating an organization and a project takes more than forty queries, so a test process does it only
once. In later tests that roll back, the same rows are inserted again, in a tenth of the time.
"""

from copy import deepcopy
from datetime import date

from django.apps import apps
from django.db import connection
from django.utils import timezone

from billing.organizations import create_organization, create_project
from projects.change_feed import ChangeCursor
from projects.models import Project

_FOLDERS = ("projects", "quota", "billing")
_CURSOR = ChangeCursor._meta.db_table
_EMPTY = (
    "SELECT NOT EXISTS (SELECT 1 FROM projects_organization)"
    " AND NOT EXISTS (SELECT 1 FROM projects_change)"
)

Rows = dict[str, list[tuple[object, ...]]]
"""Rows by the statement that inserts them."""
_created: dict[tuple[str, str, date], tuple[Project, Rows]] = {}


def ready_project(organization: str, name: str) -> Project:
    """Return a project of a new organization. In a database with others, it is really created."""
    if not connection.in_atomic_block or not _is_empty():
        return create_project(create_organization(organization), name)
    key = (organization, name, timezone.now().date())  # because accounts have billing periods
    if key not in _created:
        before = _all_rows()
        project = create_project(create_organization(organization), name)
        new = {
            statement: [row for row in rows if row not in before[statement]]
            for statement, rows in _all_rows().items()
        }
        _created[key] = deepcopy(project), {each: rows for each, rows in new.items() if rows}
        return project
    project, rows = _created[key]
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {_CURSOR}")
        for statement, values in rows.items():
            cursor.executemany(statement, values)
    return deepcopy(project)


def _is_empty() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_EMPTY)
        return bool(cursor.fetchone()[0])


def _all_rows() -> Rows:
    found: Rows = {}
    with connection.cursor() as cursor:
        for folder in _FOLDERS:
            for model in apps.get_app_config(folder).get_models(include_auto_created=True):
                table = connection.ops.quote_name(model._meta.db_table)
                cursor.execute(f"SELECT * FROM {table}")
                names = ", ".join(connection.ops.quote_name(c[0]) for c in cursor.description)
                places = ", ".join(["%s"] * len(cursor.description))
                found[f"INSERT INTO {table} ({names}) VALUES ({places})"] = cursor.fetchall()
    return found
