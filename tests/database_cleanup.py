"""Empty the database after a test that commits, but only the tables that it wrote to.

Django's own clean-up empties every table and creates all content types and permissions again, which
takes longer than most tests. Nothing changes these two tables, so they are kept.
"""

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TransactionTestCase

_KEPT = {"auth_permission", "django_content_type"}


def _tables_with_rows(connection: BaseDatabaseWrapper) -> list[str]:
    tables = set(connection.introspection.django_table_names()) - _KEPT
    queries = (
        f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {connection.ops.quote_name(table)})"
        for table in sorted(tables)
    )
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(queries))
        return [table for (table,) in cursor.fetchall()]


def empty(connection: BaseDatabaseWrapper) -> None:
    """Delete every row in any order, without triggers and foreign keys."""
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL session_replication_role = replica")
        for table in _tables_with_rows(connection):
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")


def use_fast_cleanup() -> None:
    """Make Django's test case for tests that commit use `empty`."""
    TransactionTestCase._fixture_teardown = lambda _: empty(connections[DEFAULT_DB_ALIAS])
