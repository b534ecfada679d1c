"""Let corrections that arrive before their event wait for it in the quarantine."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0009_grant_idempotency_key'),
    ]

    operations = [
        migrations.AddField(
            model_name='quarantinedevent',
            name='awaits',
            field=models.UUIDField(help_text='The event that it corrects, while that has not arrived.', null=True),
        ),
        migrations.AddIndex(
            model_name='quarantinedevent',
            index=models.Index(condition=models.Q(('awaits__isnull', False), ('state', 'open')), fields=['awaits'], name='quarantine_awaits_an_event'),
        ),
    ]
