"""Celery tasks that clean up credentials."""

from celery import shared_task
from django.core.management import call_command
from oauth2_provider.models import clear_expired


@shared_task
def clear_expired_credentials() -> None:
    """Delete expired tokens, codes and sessions, to keep the tables small."""
    clear_expired()
    call_command("clearsessions")
