from functools import partial
from importlib import import_module

import django.db.models.deletion
from django.db import migrations, models

triggers = import_module("billing.migrations.0002_triggers")
TABLES = ("billing_attemptrefund",)


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0004_usage_sums'),
        ('projects', '0001_version_0_1_0'),
    ]

    operations = [
        migrations.AlterField(
            model_name='auditentry',
            name='action',
            field=models.CharField(choices=[('limit_set', 'limit set'), ('cap_set', 'cap set'), ('credits_granted', 'topped up'), ('grant_voided', 'top-up voided'), ('event_booked', 'quarantined event booked'), ('event_discarded', 'quarantined event discarded'), ('event_refunded', 'event refunded'), ('run_refunded', 'task run refunded'), ('attempt_refunded', 'attempt at a task run refunded'), ('organization_activated', 'organization activated'), ('organization_deactivated', 'organization deactivated'), ('token_rotated', 'project API token rotated'), ('key_revoked', 'personal API key revoked'), ('token_revoked', 'OAuth access token revoked'), ('workspace_activated', 'Slack workspace activated'), ('workspace_deactivated', 'Slack workspace deactivated')], max_length=30),
        ),
        migrations.CreateModel(
            name='AttemptRefund',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('task_run_id', models.UUIDField(verbose_name='run')),
                ('since', models.DateTimeField()),
                ('until', models.DateTimeField()),
                ('reason', models.CharField(help_text='Why its work was lost.', max_length=200)),
                ('actor', models.CharField(blank=True, default='', max_length=200)),
                ('made_at', models.DateTimeField(db_index=True)),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='projects.project')),
            ],
            options={
                'ordering': ['-made_at'],
                'constraints': [models.UniqueConstraint(fields=('task_run_id', 'since'), name='attempt_refund_unique')],
            },
        ),
        migrations.RunPython(
            partial(triggers.install, tables=TABLES), partial(triggers.remove, tables=TABLES)
        ),
    ]
