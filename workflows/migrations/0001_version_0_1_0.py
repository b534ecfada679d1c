"""Everything of version 0.1.0."""

import django.db.models.deletion
import django.utils.timezone
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    # Development versions had these instead. A database that has all of them needs nothing.
    replaces = [
        ('workflows', '0001_initial'),
        ('workflows', '0002_credit_notices'),
        ('workflows', '0003_early_replies'),
        ('workflows', '0004_threads_and_users'),
        ('workflows', '0005_outcome_of_follow_ups'),
        ('workflows', '0006_replies_and_stops'),
        ('workflows', '0007_ways_to_deliver_an_answer'),
    ]

    # After oauth2_provider, whose changes make Django render every related model again.
    dependencies = [
        ('projects', '0001_version_0_1_0'),
        ('admin', '0003_logentry_add_action_flag_choices'),
        ('oauth2_provider', '0022_refreshtoken_token_family_index'),
    ]

    operations = [
        migrations.CreateModel(
            name='Mention',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('team_id', models.CharField(max_length=32)),
                ('channel_id', models.CharField(max_length=32)),
                ('ts', models.CharField(help_text="Slack's identity of the message in its channel.", max_length=32)),
                ('thread_ts', models.CharField(help_text='Root of the thread; `ts` at top level.', max_length=32)),
                ('user_id', models.CharField(max_length=32)),
                ('text', models.TextField()),
                ('event_id', models.CharField(blank=True, default='', max_length=64)),
                ('state', models.CharField(choices=[('received', 'received: to be decided about'), ('started', 'started: its workflow is running'), ('refused', 'refused, and said so in the thread'), ('forwarded', 'forwarded to the running task of the thread'), ('answered', 'answered in the thread'), ('failed', 'failed, and said so in the thread'), ('asked', 'asked what to do: it had no text'), ('stopped', 'stopped by its author, or the order that stopped another')], default='received', max_length=10)),
                ('outcome', models.CharField(blank=True, default='', help_text='Why it ended as it did, in words.', max_length=200)),
                ('workflow_id', models.CharField(blank=True, db_index=True, default='', max_length=255)),
                ('lease_until', models.DateTimeField(blank=True, help_text='Until then only one process decides about the mention.', null=True)),
                ('received_at', models.DateTimeField(auto_now_add=True, db_index=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('takes_up', models.OneToOneField(blank=True, help_text="The author's earlier, unanswered request in the thread, which this one repeats. Each is taken up at most once.", null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='taken_up_by', to='workflows.mention')),
                ('workspace', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='mentions', to='projects.slackworkspace')),
            ],
            options={
                'ordering': ['-received_at'],
            },
        ),
        migrations.CreateModel(
            name='Notice',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('key', models.CharField(max_length=200, unique=True)),
                ('kind', models.CharField(choices=[('denial', 'Denial'), ('no_access', 'No Access'), ('not_your_task', 'Not Your Task'), ('picker', 'Picker'), ('picker_refusal', 'Picker Refusal'), ('answer', 'Answer'), ('failure', 'Failure'), ('credits', 'credits: they run low, or are back'), ('question', 'question: what should the bot do?'), ('stop', 'stop: what was stopped, or why nothing was'), ('hint', 'hint: how to go on in a thread that has ended')], max_length=20)),
                ('channel_id', models.CharField(max_length=32)),
                ('thread_ts', models.CharField(blank=True, help_text='Empty: at the root of the channel.', max_length=32)),
                ('user_id', models.CharField(blank=True, help_text="The user to tell if the thread can't be told.", max_length=32)),
                ('text', models.TextField()),
                ('blocks', models.JSONField(blank=True, default=list, help_text='Block Kit blocks shown instead of the text, if any.')),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('sending', 'sending: claimed, outcome unknown until sent'), ('sent', 'Sent'), ('given_up', 'Given Up')], default='pending', max_length=10)),
                ('destination', models.CharField(choices=[('thread', 'Thread'), ('ephemeral', 'ephemeral: shown to the user only'), ('parts', 'parts: several messages in the thread'), ('file', 'file: a file in the thread'), ('dm', 'direct message: Slack refused the thread'), ('dm_parts', 'several direct messages: Slack refused the thread'), ('dm_file', 'file in a direct message: Slack refused the thread'), ('page', 'page: kept here, because Slack refused it everywhere')], default='thread', max_length=10)),
                ('messages_sent', models.PositiveSmallIntegerField(db_default=0, default=0, help_text='How many of its messages were sent to this destination.')),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('next_attempt_at', models.DateTimeField(default=django.utils.timezone.now, help_text='When to send it. While sending, when the sender counts as dead.')),
                ('message_ts', models.CharField(blank=True, default='', max_length=32)),
                ('error', models.CharField(blank=True, default='', max_length=200)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('sent_at', models.DateTimeField(blank=True, null=True)),
                ('mention', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='notices', to='workflows.mention')),
                ('workspace', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='notices', to='projects.slackworkspace')),
            ],
            options={
                'ordering': ['-created_at'],
            },
        ),
        migrations.CreateModel(
            name='ThreadReply',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('channel_id', models.CharField(max_length=32)),
                ('ts', models.CharField(max_length=32)),
                ('thread_ts', models.CharField(max_length=32)),
                ('user_id', models.CharField(max_length=32)),
                ('text', models.TextField()),
                ('decided_at', models.DateTimeField(blank=True, help_text='When it was last found not to be for the bot.', null=True)),
                ('received_at', models.DateTimeField(auto_now_add=True, db_index=True)),
                ('workspace', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='projects.slackworkspace')),
            ],
            options={
                'verbose_name_plural': 'thread replies',
                'ordering': ['-received_at'],
            },
        ),
        migrations.CreateModel(
            name='FollowUp',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('channel_id', models.CharField(max_length=32)),
                ('ts', models.CharField(max_length=32)),
                ('thread_ts', models.CharField(max_length=32)),
                ('user_id', models.CharField(max_length=32)),
                ('text', models.TextField()),
                ('addressed', models.BooleanField(help_text='Whether the reply mentions the bot.')),
                ('workflow_id', models.CharField(max_length=255)),
                ('state', models.CharField(choices=[('received', 'received: to be signalled to its workflow'), ('signalled', 'signalled: its workflow knows of it'), ('handled', 'handled: a run answers it'), ('refused', 'refused for lack of credits'), ('dropped', 'dropped: there was no task for it, or it had ended')], default='received', max_length=10)),
                ('outcome', models.CharField(blank=True, db_default='', default='', help_text='Why it was refused or dropped, in words.', max_length=200)),
                ('received_at', models.DateTimeField(auto_now_add=True)),
                ('workspace', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='follow_ups', to='projects.slackworkspace')),
            ],
            options={
                'ordering': ['-received_at'],
                'indexes': [models.Index(condition=models.Q(('state', 'received')), fields=['received_at'], name='follow_up_still_to_signal'), models.Index(condition=models.Q(('state__in', ['received', 'signalled'])), fields=['workflow_id'], name='follow_up_waiting'), models.Index(fields=['channel_id', 'thread_ts'], name='follow_up_in_thread'), models.Index(fields=['user_id', 'received_at'], name='follow_up_of_user')],
                'constraints': [models.UniqueConstraint(fields=('workspace', 'channel_id', 'ts'), name='follow_up_unique_message')],
            },
        ),
        migrations.AddIndex(
            model_name='mention',
            index=models.Index(condition=models.Q(('state', 'received')), fields=['received_at'], name='mention_still_to_start'),
        ),
        migrations.AddIndex(
            model_name='mention',
            index=models.Index(condition=models.Q(('state__in', ['received', 'started'])), fields=['workspace', 'channel_id', 'thread_ts'], name='mention_open_in_thread'),
        ),
        migrations.AddIndex(
            model_name='mention',
            index=models.Index(fields=['channel_id', 'thread_ts'], name='mention_in_thread'),
        ),
        migrations.AddIndex(
            model_name='mention',
            index=models.Index(fields=['user_id', 'received_at'], name='mention_of_user'),
        ),
        migrations.AddConstraint(
            model_name='mention',
            constraint=models.UniqueConstraint(fields=('workspace', 'channel_id', 'ts'), name='mention_unique_message'),
        ),
        migrations.AddIndex(
            model_name='notice',
            index=models.Index(condition=models.Q(('state__in', ['pending', 'sending'])), fields=['next_attempt_at'], name='notice_still_to_send'),
        ),
        migrations.AddIndex(
            model_name='notice',
            index=models.Index(fields=['workspace', 'channel_id', 'thread_ts'], name='notice_thread'),
        ),
        migrations.AddIndex(
            model_name='threadreply',
            index=models.Index(fields=['workspace', 'channel_id', 'thread_ts', 'user_id'], name='thread_reply_of_author'),
        ),
        migrations.AddIndex(
            model_name='threadreply',
            index=models.Index(condition=models.Q(('decided_at', None)), fields=['received_at'], name='thread_reply_undecided'),
        ),
        migrations.AddConstraint(
            model_name='threadreply',
            constraint=models.UniqueConstraint(fields=('workspace', 'channel_id', 'ts'), name='thread_reply_unique_message'),
        ),
    ]
