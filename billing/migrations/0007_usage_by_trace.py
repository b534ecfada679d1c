"""Add an index to find events outside task runs by their trace.

Building the index of a long ledger blocks bookings. Their events wait in the gateway meanwhile.
"""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0006_grace_began_at"),
        ("projects", "0003_credits_channel"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="usageevent",
            index=models.Index(
                fields=["trace_id"],
                condition=Q(task_run_id__isnull=True),
                name="usage_event_by_trace",
            ),
        ),
    ]
