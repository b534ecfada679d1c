"""Ledger totals, and when each account was last verified in full."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0007_usage_by_trace"),
    ]

    operations = [
        migrations.CreateModel(
            name="CheckpointSum",
            fields=[
                (
                    "account",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="billing.account",
                    ),
                ),
                ("credits_micro", models.BigIntegerField(default=0)),
                ("debited_micro", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="LedgerCheckpoint",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("booked_before", models.DateTimeField()),
            ],
        ),
        migrations.AddField(
            model_name="account",
            name="verified_at",
            field=models.DateTimeField(
                editable=False,
                help_text="When it was last compared with its whole ledger.",
                null=True,
            ),
        ),
    ]
