from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('coding_tasks', '0005_progress_messages'),
        ('projects', '0001_version_0_1_0'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddIndex(
            model_name='codingtask',
            index=models.Index(fields=['workspace', 'owner_slack_user_id', '-created_at'], name='coding_task_of_slack_user'),
        ),
    ]
