from functools import partial
from importlib import import_module

from django.db import migrations, models

triggers = import_module("billing.migrations.0002_triggers")
TABLES = ("billing_thresholdnotice",)


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0005_attempt_refunds'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='thresholdnotice',
            name='threshold_notice_once',
        ),
        migrations.AddField(
            model_name='account',
            name='announced_of_micro',
            field=models.BigIntegerField(editable=False, help_text='The credits of the period when that was.', null=True),
        ),
        migrations.AddField(
            model_name='account',
            name='warning_round',
            field=models.PositiveIntegerField(db_default=0, default=0, editable=False, help_text="How often more credits brought the period's usage below an announced threshold."),
        ),
        migrations.AddField(
            model_name='thresholdnotice',
            name='round',
            field=models.PositiveIntegerField(db_default=0, default=0, help_text='How many rounds of the period were over before.'),
        ),
        migrations.AlterField(
            model_name='account',
            name='announced_percent',
            field=models.PositiveSmallIntegerField(default=0, editable=False, help_text='The highest threshold announced in this round.'),
        ),
        migrations.AddConstraint(
            model_name='thresholdnotice',
            constraint=models.UniqueConstraint(fields=('account', 'period_start', 'round', 'percent'), name='threshold_notice_once'),
        ),
        # SQLite copied the table, without its triggers.
        migrations.RunPython(
            partial(triggers.install, tables=TABLES), migrations.RunPython.noop
        ),
    ]
