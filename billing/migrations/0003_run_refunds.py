from functools import partial
from importlib import import_module

import django.db.models.deletion
from django.db import migrations, models

triggers = import_module("billing.migrations.0002_triggers")
TABLES = ("billing_runrefund",)


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0002_triggers'),
        ('projects', '0001_version_0_1_0'),
    ]

    operations = [
        migrations.AlterField(
            model_name='auditentry',
            name='action',
            field=models.CharField(choices=[('limit_set', 'Limit Set'), ('cap_set', 'Cap Set'), ('credits_granted', 'Credits Granted'), ('grant_voided', 'Grant Voided'), ('event_booked', 'quarantined event booked'), ('event_discarded', 'quarantined event discarded'), ('event_refunded', 'Event Refunded'), ('run_refunded', 'task run refunded'), ('organization_activated', 'Organization Activated'), ('organization_deactivated', 'Organization Deactivated'), ('token_rotated', 'project API token rotated')], max_length=30),
        ),
        migrations.CreateModel(
            name='RunRefund',
            fields=[
                ('task_run_id', models.UUIDField(primary_key=True, serialize=False, verbose_name='run')),
                ('reason', models.CharField(help_text='The failure that ended the run.', max_length=200)),
                ('actor', models.CharField(blank=True, default='', max_length=200)),
                ('made_at', models.DateTimeField(db_index=True)),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='projects.project')),
            ],
            options={
                'ordering': ['-made_at'],
            },
        ),
        migrations.RunPython(
            partial(triggers.install, tables=TABLES), partial(triggers.remove, tables=TABLES)
        ),
    ]
