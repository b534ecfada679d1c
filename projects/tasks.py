"""Celery tasks of credentials."""

from celery import shared_task
from django.core.management import call_command
from oauth2_provider.models import clear_expired


@shared_task
def clear_expired_credentials() -> None:
    """Delete expired tokens, codes and sessions. Nothing depends on it but the tables' size."""
    clear_expired()
    call_command("clearsessions")
