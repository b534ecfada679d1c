"""`manage.py reencrypt_secrets`: the middle step of rotating `SECRET_KEY`."""

from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from projects.models import SlackWorkspace


class Command(BaseCommand):
    """Encrypt every stored secret with the current SECRET_KEY, reading old ones with fallbacks."""

    help = __doc__

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Save every Slack bot token again in one transaction."""
        with transaction.atomic():
            workspaces = list(SlackWorkspace.objects.select_for_update())
            for workspace in workspaces:
                workspace.save(update_fields=["bot_token"])
        self.stdout.write(f"{len(workspaces)} bot token(s) encrypted with the current SECRET_KEY.")
