"""Everything of version 0.1.0."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    # Development versions had these instead. A database that has all of them needs nothing.
    replaces = [
        ('quota', '0001_initial'),
        ('quota', '0002_caps'),
    ]

    # After oauth2_provider, whose changes make Django render every related model again.
    dependencies = [
        ('projects', '0001_version_0_1_0'),
        ('admin', '0003_logentry_add_action_flag_choices'),
        ('oauth2_provider', '0022_refreshtoken_token_family_index'),
    ]

    operations = [
        migrations.CreateModel(
            name='CapState',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('resource', models.CharField(choices=[('ai_credits', 'AI credits'), ('posthog_code_credits', 'PostHog Code credits')], max_length=40)),
                ('scope', models.CharField(choices=[('project', 'Project'), ('user', 'User')], max_length=10)),
                ('subject', models.CharField(help_text="The project's number or the user's id.", max_length=200)),
                ('cap_micro', models.BigIntegerField(help_text='Per period; empty: not capped.', null=True)),
                ('usage_micro', models.BigIntegerField(default=0)),
                ('booked', models.JSONField(default=dict)),
                ('exhausted', models.BooleanField(default=False)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='projects.organization')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('organization', 'resource', 'scope', 'subject'), name='cap_state_unique')],
            },
        ),
        migrations.CreateModel(
            name='QuotaState',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('resource', models.CharField(choices=[('ai_credits', 'AI credits'), ('posthog_code_credits', 'PostHog Code credits')], max_length=40)),
                ('version', models.BigIntegerField()),
                ('state', models.CharField(max_length=10)),
                ('valid_until', models.DateTimeField(db_index=True, help_text='From then on billing has to decide again.', null=True)),
                ('document', models.TextField(help_text='The whole state, as it is kept in Redis.')),
                ('changed_at', models.DateTimeField(db_index=True)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='quota_states', to='projects.organization')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('organization', 'resource'), name='quota_state_unique')],
            },
        ),
        migrations.CreateModel(
            name='SetMember',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('resource', models.CharField(choices=[('ai_credits', 'AI credits'), ('posthog_code_credits', 'PostHog Code credits')], max_length=40)),
                ('token', models.CharField(max_length=200, verbose_name='project API token')),
                ('origin', models.CharField(choices=[('published', 'Published'), ('by_hand', 'set by hand')], max_length=10)),
                ('version', models.BigIntegerField(default=1, help_text='Fences what is written to Redis.')),
                ('limited_until', models.BigIntegerField(help_text='Score, in unix seconds.', null=True)),
                ('suspended_until', models.BigIntegerField(help_text='Score, in unix seconds.', null=True)),
                ('reason', models.CharField(blank=True, max_length=40)),
                ('since', models.DateTimeField(help_text='When the present block began.', null=True)),
                ('changed_at', models.DateTimeField(db_index=True)),
                ('organization', models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='projects.organization')),
                ('project', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='projects.project')),
            ],
            options={
                'verbose_name': 'limited project',
                'indexes': [models.Index(fields=['organization', 'resource'], name='set_member_account'), models.Index(fields=['limited_until'], name='set_member_limited_until'), models.Index(fields=['suspended_until'], name='set_member_suspended_until')],
                'constraints': [models.UniqueConstraint(fields=('resource', 'token', 'origin'), name='set_member_unique')],
            },
        ),
    ]
