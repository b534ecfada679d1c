from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("coding_tasks", "0003_threads"),
    ]

    operations = [
        migrations.AddField(
            model_name="taskrun",
            name="waits",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                help_text="How often it began to wait for credits: when it was paused, and after each look in vain.",
            ),
        ),
    ]
