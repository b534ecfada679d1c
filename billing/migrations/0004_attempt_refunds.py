from functools import partial
from importlib import import_module

import django.db.models.deletion
from django.db import migrations, models

triggers = import_module("billing.migrations.0002_triggers")
TABLES = ("billing_attemptrefund",)


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0003_run_refunds'),
        ('projects', '0001_version_0_1_0'),
    ]

    operations = [
        migrations.AlterField(
            model_name='auditentry',
            name='action',
            field=models.CharField(choices=[('limit_set', 'Limit Set'), ('cap_set', 'Cap Set'), ('credits_granted', 'Credits Granted'), ('grant_voided', 'Grant Voided'), ('event_booked', 'quarantined event booked'), ('event_discarded', 'quarantined event discarded'), ('event_refunded', 'Event Refunded'), ('run_refunded', 'task run refunded'), ('attempt_refunded', 'attempt at a task run refunded'), ('organization_activated', 'Organization Activated'), ('organization_deactivated', 'Organization Deactivated'), ('token_rotated', 'project API token rotated')], max_length=30),
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
