"""Add idempotency keys, so that a repeated top-up is granted once."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0008_ledger_checkpoint'),
    ]

    operations = [
        migrations.AddField(
            model_name='creditgrant',
            name='idempotency_key',
            field=models.CharField(blank=True, db_default='', default='', editable=False, help_text='Repeating the request with this key returns this top-up instead of another one.', max_length=100),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.UniqueConstraint(condition=models.Q(('idempotency_key', ''), _negated=True), fields=('account', 'idempotency_key'), name='grant_once_for_a_key'),
        ),
    ]
