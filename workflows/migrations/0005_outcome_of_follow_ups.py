from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("workflows", "0004_threads_and_users"),
    ]

    operations = [
        migrations.AddField(
            model_name="followup",
            name="outcome",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Why it was refused or dropped, in words.",
                max_length=200,
            ),
        ),
    ]
