"""The tasks that Celery beat starts. They can run twice, late or at the same time."""

from celery import shared_task

from billing import sweep
from billing.reports import daily_usage, usage_sums
from billing.verification import rotation


@shared_task
def sweep_accounts() -> None:
    """Decide about every account."""
    sweep.sweep_all()


@shared_task
def sweep_due_accounts() -> None:
    """Decide about the accounts whose decision has expired."""
    sweep.sweep_due()


@shared_task
def verify_accounts() -> None:
    """Compare some accounts with their whole ledger, in turns."""
    rotation.verify_some()


@shared_task
def report_usage() -> None:
    """Bring the daily usage report up to date."""
    daily_usage.report_what_was_booked()


@shared_task
def sum_usage() -> None:
    """Add what was booked lately to the sums of all accounts."""
    usage_sums.sum_what_was_booked()
