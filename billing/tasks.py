"""What Celery beat calls. All of it may run twice, late, or side by side."""

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from billing import daily_usage, sweep

REPORT_LOOKS_BACK = timedelta(days=2)


@shared_task
def sweep_accounts() -> None:
    """Decide about every account."""
    sweep.sweep_all()


@shared_task
def sweep_due_accounts() -> None:
    """Decide about the accounts whose decision was only valid until now."""
    sweep.sweep_due()


@shared_task
def report_usage() -> None:
    """Make the daily usage report again for every day of which events were booked lately.

    Looks back further than its own interval, so that a run that was missed is caught up.
    """
    for day in daily_usage.days_booked_since(timezone.now() - REPORT_LOOKS_BACK):
        daily_usage.report_day(day)
