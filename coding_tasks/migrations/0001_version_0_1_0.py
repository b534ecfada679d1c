"""Everything of version 0.1.0."""

import coding_tasks.clone_urls
import django.core.validators
import django.db.models.deletion
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    # Development versions had these instead. A database that has all of them needs nothing.
    replaces = [
        ('coding_tasks', '0001_initial'),
        ('coding_tasks', '0002_paused_runs'),
        ('coding_tasks', '0003_threads'),
        ('coding_tasks', '0004_waits'),
        ('coding_tasks', '0005_stopped'),
    ]

    # After oauth2_provider, whose changes make Django render every related model again.
    dependencies = [
        ('projects', '0001_version_0_1_0'),
        ('admin', '0003_logentry_add_action_flag_choices'),
        ('oauth2_provider', '0022_refreshtoken_token_family_index'),
    ]

    operations = [
        migrations.CreateModel(
            name='Repository',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('full_name', models.CharField(help_text='The name that people use: owner/name.', max_length=200, validators=[django.core.validators.RegexValidator('^[A-Za-z0-9][\\w.-]*/[A-Za-z0-9_.][\\w.-]*$', 'Write the repository as owner/name.')])),
                ('clone_url', models.CharField(help_text='Where git fetches it from, without a credential.', max_length=500, validators=[coding_tasks.clone_urls.validate_clone_url])),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='repositories', to='projects.project')),
            ],
            options={
                'verbose_name_plural': 'repositories',
                'ordering': ['full_name'],
            },
        ),
        migrations.CreateModel(
            name='CodingTask',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('channel_id', models.CharField(max_length=32)),
                ('thread_ts', models.CharField(max_length=32)),
                ('owner_slack_user_id', models.CharField(max_length=32)),
                ('title', models.CharField(max_length=200)),
                ('permalink', models.URLField(blank=True, default='', max_length=500)),
                ('workflow_id', models.CharField(max_length=255, unique=True)),
                ('state', models.CharField(choices=[('active', 'Active'), ('done', 'Done'), ('failed', 'Failed'), ('stopped', 'Stopped')], default='active', max_length=10)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='coding_tasks', to='projects.project')),
                ('workspace', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to='projects.slackworkspace')),
                ('repository', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to='coding_tasks.repository')),
            ],
            options={
                'ordering': ['-created_at'],
            },
        ),
        migrations.CreateModel(
            name='ChannelDefault',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('channel_id', models.CharField(max_length=32)),
                ('workspace', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to='projects.slackworkspace')),
                ('repository', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to='coding_tasks.repository')),
            ],
        ),
        migrations.CreateModel(
            name='TaskRun',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('message_ts', models.CharField(help_text='The message that this turn answers.', max_length=32)),
                ('request', models.TextField()),
                ('answer', models.TextField(blank=True, default='')),
                ('state', models.CharField(choices=[('queued', 'Queued'), ('running', 'Running'), ('paused', 'paused: out of credits'), ('succeeded', 'Succeeded'), ('failed', 'Failed'), ('stopped', 'stopped by a person')], default='queued', max_length=10)),
                ('error', models.CharField(blank=True, default='', max_length=200)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('started_at', models.DateTimeField(blank=True, null=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('left_at_pause', models.BigIntegerField(blank=True, help_text='While paused: the fewest micro-credits left since then, too few for the work. Empty if no work may start at all.', null=True)),
                ('woken_at', models.DateTimeField(blank=True, help_text='While paused: when its workflow was told of new credits.', null=True)),
                ('waits', models.PositiveIntegerField(db_default=0, default=0, help_text='How often it began to wait for credits: when it was paused, and after each check that found too few.')),
                ('task', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='runs', to='coding_tasks.codingtask')),
            ],
            options={
                'ordering': ['-created_at'],
            },
        ),
        migrations.AddConstraint(
            model_name='repository',
            constraint=models.UniqueConstraint(fields=('project', 'full_name'), name='repository_unique'),
        ),
        migrations.AddIndex(
            model_name='codingtask',
            index=models.Index(fields=['channel_id', 'thread_ts'], name='coding_task_in_thread'),
        ),
        migrations.AddConstraint(
            model_name='codingtask',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'active')), fields=('workspace', 'channel_id', 'thread_ts'), name='coding_task_one_active_per_thread'),
        ),
        migrations.AddConstraint(
            model_name='channeldefault',
            constraint=models.UniqueConstraint(fields=('workspace', 'channel_id'), name='channel_default_unique'),
        ),
        migrations.AddIndex(
            model_name='taskrun',
            index=models.Index(condition=models.Q(('state', 'paused'), ('woken_at', None)), fields=['created_at'], name='task_run_to_wake'),
        ),
        migrations.AddConstraint(
            model_name='taskrun',
            constraint=models.UniqueConstraint(fields=('task', 'message_ts'), name='task_run_unique_message'),
        ),
    ]
