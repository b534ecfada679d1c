"""Everything of version 0.1.0."""

import billing.models
import django.db.models.deletion
import django.db.models.functions.comparison
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    # Development versions had these instead. A database that has all of them needs nothing.
    replaces = [
        ('billing', '0001_initial'),
        ('billing', '0002_append_only_triggers'),
        ('billing', '0003_caps'),
        ('billing', '0004_insufficient_remaining'),
        ('billing', '0005_usage_by_run'),
        ('billing', '0006_grace_began_at'),
        ('billing', '0007_usage_by_trace'),
        ('billing', '0008_ledger_checkpoint'),
        ('billing', '0009_grant_idempotency_key'),
        ('billing', '0010_corrections_await_their_event'),
    ]

    # After oauth2_provider, whose changes make Django render every related model again.
    dependencies = [
        ('projects', '0001_version_0_1_0'),
        ('admin', '0003_logentry_add_action_flag_choices'),
        ('oauth2_provider', '0022_refreshtoken_token_family_index'),
    ]

    operations = [
        migrations.CreateModel(
            name='Account',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('resource', models.CharField(choices=[('ai_credits', 'AI credits'), ('posthog_code_credits', 'PostHog Code credits')], max_length=40)),
                ('version', models.BigIntegerField(default=0)),
                ('ledger_epoch', models.UUIDField(default=billing.models.new_ledger_epoch, editable=False)),
                ('booked', models.BooleanField(default=False, editable=False, help_text='Whether usage was ever booked.')),
                ('state', models.CharField(blank=True, default='', editable=False, max_length=10)),
                ('reason', models.CharField(blank=True, default='', editable=False, max_length=40)),
                ('exhausted_since', models.DateTimeField(editable=False, help_text='When a decision first found nothing left.', null=True)),
                ('insufficient_micro', models.BigIntegerField(db_default=0, default=0, editable=False, help_text='What was left when it proved too little to pay for a call.')),
                ('insufficient_at', models.DateTimeField(editable=False, help_text='When that was. It applies until the end of the period.', null=True)),
                ('grace_began_at', models.DateTimeField(editable=False, help_text="When the period's one grace began.", null=True)),
                ('period_start', models.DateTimeField(editable=False, help_text='Start of the current period; earlier ones are closed.', null=True)),
                ('caps_version', models.BigIntegerField(db_default=0, default=0, editable=False, help_text='Version of the published caps. 0: there never were any.')),
                ('announced_percent', models.PositiveSmallIntegerField(default=0, editable=False, help_text='The highest threshold announced in this period.')),
                ('decide_again_at', models.DateTimeField(db_index=True, editable=False, null=True)),
                ('published_digest', models.CharField(blank=True, default='', editable=False, max_length=64)),
                ('verified_at', models.DateTimeField(editable=False, help_text='When it was last compared with its whole ledger.', null=True)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='accounts', to='projects.organization')),
            ],
            options={
                'ordering': ['organization__name', 'resource'],
            },
        ),
        migrations.CreateModel(
            name='LedgerCheckpoint',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('booked_before', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='ReportedUsage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('booked_before', models.DateTimeField(help_text='Events booked since then can be missing from the report of their day.')),
            ],
            options={
                'verbose_name_plural': 'reported usage',
            },
        ),
        migrations.CreateModel(
            name='CheckpointSum',
            fields=[
                ('account', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='billing.account')),
                ('credits_micro', models.BigIntegerField(default=0)),
                ('debited_micro', models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name='AccountGroup',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('group', models.CharField(max_length=100)),
                ('booked_micro', models.BigIntegerField(default=0)),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='groups', to='billing.account')),
            ],
            options={
                'ordering': ['account', 'pk'],
            },
        ),
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(auto_now_add=True, db_index=True)),
                ('action', models.CharField(choices=[('limit_set', 'Limit Set'), ('cap_set', 'Cap Set'), ('credits_granted', 'Credits Granted'), ('grant_voided', 'Grant Voided'), ('event_booked', 'quarantined event booked'), ('event_discarded', 'quarantined event discarded'), ('event_refunded', 'Event Refunded'), ('organization_activated', 'Organization Activated'), ('organization_deactivated', 'Organization Deactivated'), ('token_rotated', 'project API token rotated')], max_length=30)),
                ('actor', models.CharField(blank=True, default='', max_length=200)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('details', models.JSONField(default=dict)),
                ('organization', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='audit_entries', to='projects.organization')),
            ],
            options={
                'verbose_name_plural': 'audit entries',
                'ordering': ['-at', '-pk'],
            },
        ),
        migrations.CreateModel(
            name='Cap',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('scope', models.CharField(choices=[('project', 'Project'), ('user', 'User'), ('run', 'Run')], max_length=10)),
                ('subject', models.CharField(blank=True, default='', help_text="A project's number, or a user such as slack:T1:U1. Empty: each one without a cap of its own.", max_length=200)),
                ('cap_micro', models.BigIntegerField(help_text='Empty: not capped.', null=True)),
                ('set_at', models.DateTimeField()),
                ('actor', models.CharField(blank=True, default='', max_length=200)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='caps', to='billing.account')),
            ],
            options={
                'ordering': ['-set_at', '-pk'],
            },
        ),
        migrations.CreateModel(
            name='CreditGrant',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('amount_micro', models.BigIntegerField()),
                ('starts_at', models.DateTimeField()),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('priority', models.SmallIntegerField(default=0, help_text='Lower is spent first.')),
                ('idempotency_key', models.CharField(blank=True, db_default='', default='', editable=False, help_text='Repeating the request with this key returns this top-up instead of another one.', max_length=100)),
                ('actor', models.CharField(blank=True, default='', max_length=200)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('created_at', models.DateTimeField()),
                ('voided_at', models.DateTimeField(blank=True, editable=False, null=True)),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='grants', to='billing.account')),
            ],
            options={
                'ordering': ['-created_at', '-pk'],
            },
        ),
        migrations.CreateModel(
            name='DailyUsage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateField()),
                ('resource', models.CharField(blank=True, help_text='Empty: nobody pays.', max_length=40)),
                ('product', models.CharField(max_length=40)),
                ('model', models.CharField(blank=True, max_length=200)),
                ('distinct_id', models.CharField(blank=True, max_length=200, verbose_name='user')),
                ('task_run_id', models.UUIDField(null=True)),
                ('events', models.BigIntegerField()),
                ('credits_micro', models.BigIntegerField()),
                ('input_tokens', models.BigIntegerField()),
                ('output_tokens', models.BigIntegerField()),
                ('cache_read_input_tokens', models.BigIntegerField()),
                ('cache_creation_input_tokens', models.BigIntegerField()),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='projects.organization')),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='projects.project')),
            ],
            options={
                'verbose_name_plural': 'daily usage',
                'ordering': ['-day'],
            },
        ),
        migrations.CreateModel(
            name='DecisionRecord',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('version', models.BigIntegerField()),
                ('decided_at', models.DateTimeField()),
                ('scope', models.CharField(blank=True, choices=[('project', 'Project'), ('user', 'User'), ('run', 'Run')], db_default='', default='', help_text='The scope of the cap that it is about. Empty: the whole account.', max_length=10)),
                ('subject', models.CharField(blank=True, db_default='', default='', max_length=200)),
                ('previous_state', models.CharField(blank=True, default='', max_length=10)),
                ('state', models.CharField(max_length=10)),
                ('reason', models.CharField(blank=True, default='', max_length=40)),
                ('inputs', models.JSONField()),
                ('outcome', models.JSONField()),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='decisions', to='billing.account')),
            ],
            options={
                'ordering': ['-decided_at', '-pk'],
            },
        ),
        migrations.CreateModel(
            name='Limit',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('limit_micro', models.BigIntegerField(help_text='Per period; empty: unlimited.', null=True)),
                ('mode', models.CharField(choices=[('hard', 'hard: refuse when it is reached'), ('soft', 'soft: warn, never refuse')], default='hard', max_length=4)),
                ('grace_days', models.PositiveSmallIntegerField(default=0, help_text='Days between reaching the limit and the refusal, where there is grace.')),
                ('anchor_day', models.PositiveSmallIntegerField(default=1, help_text='First day of the period.')),
                ('time_zone', models.CharField(default='UTC', max_length=64)),
                ('thresholds', models.JSONField(default=billing.models.default_thresholds, help_text="Percents of the period's credits at which to warn; the first begins `warning`.")),
                ('set_at', models.DateTimeField()),
                ('actor', models.CharField(blank=True, default='', max_length=200)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='limits', to='billing.account')),
            ],
            options={
                'ordering': ['-set_at'],
            },
        ),
        migrations.CreateModel(
            name='QuarantinedEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('event_uuid', models.CharField(blank=True, db_index=True, default='', max_length=64)),
                ('reason', models.CharField(db_index=True, max_length=40)),
                ('detail', models.CharField(blank=True, default='', max_length=300)),
                ('awaits', models.UUIDField(help_text='The event that it corrects, while that has not arrived.', null=True)),
                ('payload', models.TextField(help_text='The event as it arrived, as JSON in ASCII.')),
                ('payload_sha256', models.CharField(max_length=64, unique=True)),
                ('state', models.CharField(choices=[('open', 'open: to be decided'), ('booked', 'Booked'), ('discarded', 'Discarded')], default='open', max_length=10)),
                ('received_at', models.DateTimeField()),
                ('resolved_at', models.DateTimeField(null=True)),
                ('resolved_by', models.CharField(blank=True, default='', max_length=200)),
            ],
            options={
                'ordering': ['-received_at'],
                'indexes': [models.Index(condition=models.Q(('state', 'open')), fields=['received_at'], name='quarantine_still_open'), models.Index(condition=models.Q(('awaits__isnull', False), ('state', 'open')), fields=['awaits'], name='quarantine_awaits_an_event')],
            },
        ),
        migrations.CreateModel(
            name='ThresholdNotice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('period_start', models.DateTimeField()),
                ('percent', models.PositiveSmallIntegerField(help_text='0: something is left again.')),
                ('usage_micro', models.BigIntegerField()),
                ('noticed_at', models.DateTimeField()),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='notices', to='billing.account')),
            ],
            options={
                'ordering': ['-noticed_at', '-pk'],
            },
        ),
        migrations.CreateModel(
            name='UsageEvent',
            fields=[
                ('uuid', models.UUIDField(primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('usage', 'Usage'), ('late', 'late: adjusts a period that was closed when it arrived'), ('correction', 'correction of the event it is linked to'), ('refund', 'refund of the event it is linked to'), ('discarded', 'discarded: nobody pays, the group gets its debit back')], default='usage', max_length=10)),
                ('adjusts', models.UUIDField(help_text='The event that this row corrects or refunds.', null=True)),
                ('occurred_at', models.DateTimeField(help_text='When it was used: decides the period.')),
                ('booked_at', models.DateTimeField(db_index=True, help_text='When it was written here.')),
                ('credits_micro', models.BigIntegerField()),
                ('cost_usd', models.CharField(help_text='Exact provider cost in dollars.', max_length=64)),
                ('price_version', models.CharField(blank=True, default='', max_length=100)),
                ('billable', models.BooleanField()),
                ('product', models.CharField(max_length=40)),
                ('model', models.CharField(blank=True, default='', max_length=200)),
                ('provider', models.CharField(blank=True, default='', max_length=100)),
                ('distinct_id', models.CharField(blank=True, default='', max_length=200)),
                ('task_run_id', models.UUIDField(null=True)),
                ('trace_id', models.CharField(blank=True, default='', max_length=200)),
                ('input_tokens', models.BigIntegerField(null=True)),
                ('output_tokens', models.BigIntegerField(null=True)),
                ('cache_read_input_tokens', models.BigIntegerField(null=True)),
                ('cache_creation_input_tokens', models.BigIntegerField(null=True)),
                ('cache_creation_5m_input_tokens', models.BigIntegerField(null=True)),
                ('cache_creation_1h_input_tokens', models.BigIntegerField(null=True)),
                ('web_search_count', models.BigIntegerField(null=True)),
                ('service_tier', models.CharField(blank=True, default='', max_length=40)),
                ('latency_ms', models.BigIntegerField(null=True)),
                ('http_status', models.SmallIntegerField(null=True)),
                ('is_stream', models.BooleanField(default=False)),
                ('is_error', models.BooleanField(default=False)),
                ('is_estimated', models.BooleanField(default=False)),
                ('group', models.CharField(blank=True, default='', help_text='The gateway Redis that held it.', max_length=100)),
                ('debited_micro', models.BigIntegerField(default=0, help_text='What the group says it spent.')),
                ('payload_sha256', models.CharField(max_length=64)),
                ('account', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='events', to='billing.account')),
                ('project', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='usage_events', to='projects.project')),
            ],
            options={
                'ordering': ['-booked_at'],
            },
        ),
        migrations.CreateModel(
            name='UsageTotal',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField()),
                ('usage_micro', models.BigIntegerField(default=0)),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='totals', to='billing.account')),
            ],
            options={
                'ordering': ['account', 'starts_at'],
            },
        ),
        migrations.AddConstraint(
            model_name='account',
            constraint=models.UniqueConstraint(fields=('organization', 'resource'), name='account_unique'),
        ),
        migrations.AddConstraint(
            model_name='accountgroup',
            constraint=models.UniqueConstraint(fields=('account', 'group'), name='account_group_unique'),
        ),
        migrations.AddIndex(
            model_name='cap',
            index=models.Index(fields=['account', 'scope', 'subject'], name='cap_by_subject'),
        ),
        migrations.AddConstraint(
            model_name='cap',
            constraint=models.CheckConstraint(condition=models.Q(('cap_micro__isnull', True), ('cap_micro__gte', 0), _connector='OR'), name='cap_not_negative'),
        ),
        migrations.AddConstraint(
            model_name='cap',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('scope', 'run'), _negated=True), ('subject', ''), _connector='OR'), name='cap_of_each_run'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.CheckConstraint(condition=models.Q(('amount_micro__gt', 0)), name='grant_positive'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.CheckConstraint(condition=models.Q(('expires_at__isnull', True), ('expires_at__gt', models.F('starts_at')), _connector='OR'), name='grant_expires_after_start'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.UniqueConstraint(condition=models.Q(('idempotency_key', ''), _negated=True), fields=('account', 'idempotency_key'), name='grant_once_for_a_key'),
        ),
        migrations.AddIndex(
            model_name='dailyusage',
            index=models.Index(fields=['organization', 'day'], name='daily_usage_by_organization'),
        ),
        migrations.AddConstraint(
            model_name='dailyusage',
            constraint=models.UniqueConstraint(models.F('day'), models.F('project'), models.F('resource'), models.F('product'), models.F('model'), models.F('distinct_id'), django.db.models.functions.comparison.Coalesce('task_run_id', models.Value(uuid.UUID('00000000-0000-0000-0000-000000000000'), models.UUIDField())), name='daily_usage_unique'),
        ),
        migrations.AddIndex(
            model_name='decisionrecord',
            index=models.Index(fields=['account', '-decided_at'], name='decision_by_account'),
        ),
        migrations.AddConstraint(
            model_name='limit',
            constraint=models.UniqueConstraint(fields=('account', 'set_at'), name='limit_unique_instant'),
        ),
        migrations.AddConstraint(
            model_name='limit',
            constraint=models.CheckConstraint(condition=models.Q(('limit_micro__isnull', True), ('limit_micro__gte', 0), _connector='OR'), name='limit_not_negative'),
        ),
        migrations.AddConstraint(
            model_name='limit',
            constraint=models.CheckConstraint(condition=models.Q(('anchor_day__gte', 1), ('anchor_day__lte', 31)), name='limit_anchor_day'),
        ),
        migrations.AddConstraint(
            model_name='thresholdnotice',
            constraint=models.UniqueConstraint(fields=('account', 'period_start', 'percent'), name='threshold_notice_once'),
        ),
        migrations.AddIndex(
            model_name='usageevent',
            index=models.Index(fields=['account', 'occurred_at'], name='usage_event_by_account'),
        ),
        migrations.AddIndex(
            model_name='usageevent',
            index=models.Index(condition=models.Q(('task_run_id__isnull', False)), fields=['task_run_id'], name='usage_event_by_run'),
        ),
        migrations.AddIndex(
            model_name='usageevent',
            index=models.Index(condition=models.Q(('task_run_id__isnull', True)), fields=['trace_id'], name='usage_event_by_trace'),
        ),
        migrations.AddIndex(
            model_name='usageevent',
            index=models.Index(condition=models.Q(('adjusts__isnull', False)), fields=['adjusts'], name='usage_event_linked'),
        ),
        migrations.AddConstraint(
            model_name='usageevent',
            constraint=models.CheckConstraint(condition=models.Q(('project__isnull', False), models.Q(('credits_micro', 0), ('kind', 'discarded')), _connector='OR'), name='usage_event_has_project'),
        ),
        migrations.AddConstraint(
            model_name='usagetotal',
            constraint=models.UniqueConstraint(fields=('account', 'starts_at'), name='usage_total_unique'),
        ),
    ]
