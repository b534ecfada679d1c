"""Emptying the database after a test that commits: only the tables that it wrote to.

Django's own way empties every table and makes all content types and permissions anew, which takes
longer than most tests. Those two stay; nothing changes them.
"""

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TransactionTestCase

_KEPT = {"auth_permission", "django_content_type"}


def _written(connection: BaseDatabaseWrapper) -> list[str]:
    tables = set(connection.introspection.django_table_names()) - _KEPT
    looks = (
        f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {connection.ops.quote_name(table)})"
        for table in sorted(tables)
    )
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(looks))
        return [table for (table,) in cursor.fetchall()]


def empty(connection: BaseDatabaseWrapper) -> None:
    """Delete every row, whatever triggers and foreign keys say to the order."""
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL session_replication_role = replica")
        for table in _written(connection):
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")


def use_fast_cleanup() -> None:
    """Let Django's test case for such tests use the above."""
    TransactionTestCase._fixture_teardown = lambda _: empty(connections[DEFAULT_DB_ALIAS])
