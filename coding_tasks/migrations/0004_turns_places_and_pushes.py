from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('coding_tasks', '0003_other_origins'),
    ]

    operations = [
        migrations.AddField(
            model_name='taskrun',
            name='uncollected_since',
            field=models.DateTimeField(blank=True, help_text="When the agent's turn began whose work is not collected yet.", null=True),
        ),
        migrations.AddField(
            model_name='runchange',
            name='push_began_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='taskrun',
            name='place_wanted_at',
            field=models.DateTimeField(blank=True, help_text="When it first asked for one of its project's places for turns.", null=True),
        ),
        migrations.AddField(
            model_name='taskrun',
            name='has_place',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddIndex(
            model_name='taskrun',
            index=models.Index(condition=models.Q(('place_wanted_at__isnull', False)), fields=['place_wanted_at'], name='task_run_in_line'),
        ),
    ]
