import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('projects', '0001_version_0_1_0'),
        ('workflows', '0004_progress_messages'),
    ]

    operations = [
        migrations.CreateModel(
            name='AgentAvailability',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('works', models.BooleanField(default=False)),
                ('tried_at', models.DateTimeField(blank=True, null=True)),
                ('error', models.CharField(blank=True, default='', max_length=200)),
                ('workspace', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='projects.slackworkspace')),
            ],
        ),
        migrations.CreateModel(
            name='AgentSession',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('channel_id', models.CharField(max_length=32)),
                ('thread_ts', models.CharField(max_length=32)),
                ('status', models.CharField(blank=True, default='', help_text='Empty: Slack shows none yet.', max_length=20)),
                ('title', models.CharField(blank=True, default='', max_length=200)),
                ('refused', models.BooleanField(default=False, help_text='Whether Slack refused this thread.')),
                ('due_at', models.DateTimeField(blank=True, help_text='Until then no other process calls Slack for it.', null=True)),
                ('workspace', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='projects.slackworkspace')),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('status__in', ['', 'closed']), _negated=True), fields=['workspace'], name='agent_session_open')],
                'constraints': [models.UniqueConstraint(fields=('workspace', 'channel_id', 'thread_ts'), name='agent_session_unique_thread')],
            },
        ),
        migrations.CreateModel(
            name='HomeTab',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('user_id', models.CharField(max_length=32)),
                ('revision', models.PositiveIntegerField(default=0)),
                ('due_at', models.DateTimeField(blank=True, help_text='When to publish it. While publishing, when the publisher counts as dead.', null=True)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('published_at', models.DateTimeField(blank=True, null=True)),
                ('access_until', models.DateTimeField(blank=True, help_text="Until then, Slack's last answer about their access is reused.", null=True)),
                ('said', models.CharField(blank=True, default='', help_text='The answer to a click, shown until the tab is opened again.', max_length=1000)),
                ('workspace', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='projects.slackworkspace')),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('due_at__isnull', False)), fields=['due_at'], name='home_tab_due')],
                'constraints': [models.UniqueConstraint(fields=('workspace', 'user_id'), name='home_tab_unique')],
            },
        ),
    ]
