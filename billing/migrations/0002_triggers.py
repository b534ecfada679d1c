"""Have the database refuse to change or delete rows of the ledger, limits, decisions and audit trail.

SQLite drops the triggers of a table that a later migration copies, so such a migration must call
`install` at its end.
"""

from django.db import migrations

TABLES = (
    "billing_usageevent",
    "billing_limit",
    "billing_cap",
    "billing_decisionrecord",
    "billing_auditentry",
    "billing_thresholdnotice",
)
ACTIONS = ("update", "delete")

POSTGRESQL_FUNCTION = """
CREATE OR REPLACE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed and never deleted', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$
"""
POSTGRESQL_TRIGGER = """
CREATE OR REPLACE TRIGGER {table}_no_{action} BEFORE {action} ON {table}
FOR EACH ROW EXECUTE FUNCTION billing_refuse_change()
"""
SQLITE_TRIGGER = """
CREATE TRIGGER IF NOT EXISTS {table}_no_{action} BEFORE {action} ON {table}
BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed and never deleted'); END
"""


def install(_apps, schema_editor, tables=TABLES):
    """Create missing triggers."""
    on_postgresql = schema_editor.connection.vendor == "postgresql"
    if on_postgresql:
        schema_editor.execute(POSTGRESQL_FUNCTION, params=None)
    trigger = POSTGRESQL_TRIGGER if on_postgresql else SQLITE_TRIGGER
    for table in tables:
        for action in ACTIONS:
            schema_editor.execute(trigger.format(table=table, action=action))


def remove(_apps, schema_editor, tables=TABLES):
    """Drop the triggers."""
    on = " ON {table}" if schema_editor.connection.vendor == "postgresql" else ""
    for table in tables:
        for action in ACTIONS:
            schema_editor.execute(f"DROP TRIGGER IF EXISTS {table}_no_{action}{on.format(table=table)}")


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_version_0_1_0")]
    operations = [migrations.RunPython(install, remove)]
