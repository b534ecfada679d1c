"""Amounts of published states as columns of a query, so that lists can be sorted by them."""

from typing import Any

from django.db.models import BigIntegerField, Func


class PublishedAmount(Func):
    """One amount of a published state, such as `usage_micro`; NULL if it is null or missing.

    `PublishedAmount("document", name="usage_micro")` reads it from a column with the state's JSON.
    """

    output_field = BigIntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Return the SQL for SQLite."""
        template = "json_extract(%(expressions)s, '$.%(name)s')"
        return self.as_sql(compiler, connection, template=template, **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Return the SQL for PostgreSQL."""
        template = "((%(expressions)s)::jsonb ->> '%(name)s')::bigint"
        return self.as_sql(compiler, connection, template=template, **context)
