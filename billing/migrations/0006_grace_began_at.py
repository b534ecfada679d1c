"""Store when the period's one grace began. Before, grace began again with every exhaustion."""

from django.db import migrations, models
from django.db.models import F


def keep_running_graces(apps, _schema_editor):
    accounts = apps.get_model("billing", "Account").objects
    accounts.exclude(exhausted_since=None).update(grace_began_at=F("exhausted_since"))


class Migration(migrations.Migration):
    dependencies = [("billing", "0005_usage_by_run")]

    operations = [
        migrations.AddField(
            model_name="account",
            name="grace_began_at",
            field=models.DateTimeField(
                editable=False, help_text="When the period's one grace began.", null=True
            ),
        ),
        migrations.RunPython(keep_running_graces, migrations.RunPython.noop, elidable=True),
    ]
