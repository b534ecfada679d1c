from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("workflows", "0003_early_replies"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="followup",
            index=models.Index(fields=["channel_id", "thread_ts"], name="follow_up_in_thread"),
        ),
        migrations.AddIndex(
            model_name="followup",
            index=models.Index(fields=["user_id", "received_at"], name="follow_up_of_user"),
        ),
        migrations.AddIndex(
            model_name="mention",
            index=models.Index(fields=["channel_id", "thread_ts"], name="mention_in_thread"),
        ),
        migrations.AddIndex(
            model_name="mention",
            index=models.Index(fields=["user_id", "received_at"], name="mention_of_user"),
        ),
    ]
