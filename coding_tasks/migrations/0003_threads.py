from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("coding_tasks", "0002_paused_runs"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="codingtask",
            index=models.Index(fields=["channel_id", "thread_ts"], name="coding_task_in_thread"),
        ),
    ]
